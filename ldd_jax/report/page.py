"""The page: tables, pictures as data, samples as text, and the player over its data."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from pathlib import Path
from typing import Any

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, is_number, parse_json, require, spread
from ldd_jax.core.colours import colours
from ldd_jax.core.pictures import pyplot
from ldd_jax.report import history
from ldd_jax.report.player import MARKUP, SCRIPT, STYLE
from ldd_jax.training.metrics import read_metrics

NO_GRID = "no grid. Its rule takes no steps in time, so that there is no mechanism by step."
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
TITLES = {
    "entropy": "entropy of p(x0 | z) at open positions, nats",
    "temporal": "temporal KL, nats",
    "norm": "RMS of the latent",
    "turn": "cosine of the latents before and after a step",
    "shift": "KL(p met in sampling || p with the pseudo-context of training), nats",
    "likeness": "cosine of the latent met and the pseudo-context",
    "ratio": "|LayerNorm(h)| / |E(z)| of what enters the network",
}
COLUMNS = (
    ("nelbo_nats_per_token", "nats/token"),
    ("nelbo_se", "s.e."),
    ("nelbo_ppl", "perplexity"),
    ("passes", "passes"),
    ("exact", "exact"),
    ("unigram_entropy", "unigram entropy"),
    ("step", "updates"),
    ("parameters", "parameters"),
)

BOUNDS = (
    "nelbo_nats_per_token",
    "nelbo_se",
    "importance_nats_per_token",
    "importance_se",
    "sequences",
    "draws",
)


def safe(value: Any) -> str:
    """Text as HTML shows it."""
    return html.escape(str(value))


def embedded(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def picture(figure: Any, name: str) -> str:
    """A figure as an image element that holds its own data."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    pyplot().close(figure)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{safe(name)}" src="data:image/png;base64,{data}">'


def training(runs: list[dict[str, Any]]) -> str:
    """Training loss and validation bound of all runs."""
    figure, axes = pyplot().subplots(figsize=(9, 4))
    for run, color in zip(runs, colours([r["recipe"] for r in runs])):
        lines = run["metrics"]
        known = lambda name, lines=lines: [
            (r["step"], r[name]) for r in lines if is_number(r["step"]) and is_number(r.get(name))
        ]
        if train := known("train_loss"):
            axes.plot(*zip(*train), lw=0.8, alpha=0.5, color=color)
        if valid := known("validation/nelbo_nats_per_token"):
            errors = [v for _, v in known("validation/nelbo_se")]
            steps, nats = zip(*valid)
            look: dict[str, Any] = dict(fmt="o-", ms=4, capsize=2, color=color, label=run["label"])
            axes.errorbar(steps, nats, errors if len(errors) == len(nats) else None, **look)
    axes.set(xlabel="update", ylabel="nats per token")
    axes.set_title("training loss (thin) and validation bound +- s.e.", fontsize=10)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    figure.tight_layout()
    return picture(figure, "training curves")


def speed(points: list[tuple[int, float]]) -> str:
    """Tokens per second by update; nothing without a point."""
    if not points:
        return ""
    figure, axes = pyplot().subplots(figsize=(9, 2.4))
    axes.plot(*zip(*points), lw=1)
    axes.set(xlabel="update", ylabel="tokens/s", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    return picture(figure, "tokens per second")


def mechanism(runs: list[dict[str, Any]]) -> str:
    """Every measure by step, all runs; bands are two standard errors over rows.

    Runs without a time grid are named beside it.
    """
    without = [r["label"] for r in runs if r["no_grid"]]
    said = "".join(f"<p class='note'>{safe(label)}: {NO_GRID}</p>" for label in without)
    if len(without) == len(runs):
        return said
    shown = [name for name in TITLES if any(name in run["curves"] for run in runs)]
    tall = -(-len(shown) // 2)
    figure, grid = pyplot().subplots(tall, 2, figsize=(11, 3 * tall), squeeze=False)
    for axes, name in zip(grid.flat, shown):
        for run, color in zip(runs, colours([r["recipe"] for r in runs])):
            values, errors = (run["curves"].get(n, []) for n in (name, f"{name}_se"))
            points = [
                (k, v, e or 0) for k, (v, e) in enumerate(zip(values, errors)) if v is not None
            ]
            if not points:
                continue
            x, y, e = zip(*points)
            axes.plot(x, y, lw=1.3, color=color, label=run["label"])
            low, high = zip(*((v - 2 * w, v + 2 * w) for v, w in zip(y, e)))
            axes.fill_between(x, low, high, alpha=0.2, color=color)
        axes.set_title(TITLES[name], fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    if shown:
        grid.flat[0].legend(fontsize=8)
    figure.tight_layout()
    return said + picture(figure, "mechanism")


def table(head: list[str], body: list[list[Any]], look: str = "figures") -> str:
    """An HTML table; every cell is escaped.

    Args:
      head: names of the columns.
      body: rows.
      look: "figures" stand at the right, "texts" at the left.
    """
    row = lambda kind, cells: "".join(f"<{kind}>{safe(c)}</{kind}>" for c in cells)
    rows = "".join(f"<tr>{row('td', cells)}</tr>" for cells in body)
    top = f"<thead><tr>{row('th', head)}</tr></thead>"
    return f"<table class={look}>{top}<tbody>{rows}</tbody></table>"


def bounds(runs: list[dict[str, Any]]) -> str:
    """What `WORKDIR/bounds.jsonl` holds: bounds, and whose they are."""
    head = ["run", "nats/token", "importance weighted", "of what", "sequences", "draws or paths"]
    body = []
    for run in runs:
        for r in run["bounds"]:
            pair = lambda n, e, r=r: spread(r[n], r.get(e), 4) if is_number(r.get(n)) else ""
            whose = r.get("sampler") or r.get("bounds") or "exact"
            many = [number(r.get(n)) for n in ("sequences", "draws")]
            nats = pair("nelbo_nats_per_token", "nelbo_se")
            tighter = pair("importance_nats_per_token", "importance_se")
            body.append([run["label"], nats, tighter, whose, *many])
    return table(head, body) if body else ""


def over_training(runs: list[dict[str, Any]]) -> str:
    """What each run wrote at the times that it sampled in training; nothing where none did."""
    out = ""
    for run in filter(lambda r: r["history"], runs):
        many = max(len(texts) for _, texts in run["history"])
        body = [[f"{step:,}", *texts] for step, texts in history.chosen(run["history"])]
        head = ["update", *[""] * min(many, history.EACH)]
        out += f"<h3>{safe(run['label'])}</h3>{table(head, body, 'texts')}"
    return f"<h2>Samples over training</h2>{out}" if out else ""


def number(value: Any) -> str:
    """A cell."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def counts(runs: list[dict[str, Any]]) -> str:
    """Busy steps, oscillations and returns."""
    head = ["run", "busy steps", "closed form", "oscillations", "returns"]
    body = []
    for run in runs:
        if run["no_grid"]:
            body.append([run["label"], "no grid", "", "", ""])
            continue
        c = run["counts"]
        pair = lambda n, c=c: spread(c[n], c[f"{n}_se"], 3)
        closed = number(c.get("busy_expected"))
        body.append([run["label"], pair("busy"), closed, pair("oscillations"), pair("returns")])
    return table(head, body)


def frontier(folder: Path) -> str:
    """The picture and table of a `bench` folder.

    Raises:
      UserError: if it holds none.
    """
    try:
        image, text = reading.read(folder / "frontier.png"), reading.read_text(folder / "table.md")
    except OSError as error:
        raise UserError(f"--bench={folder}: {error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--bench={folder}: table.md is no text") from error
    require(len(text.splitlines()) > 2, f"--bench={folder}: table.md holds no table")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.strip()]
    data = base64.b64encode(image).decode()
    shown = f'<img alt="frontier" src="data:image/png;base64,{data}">'
    return f"<h2>Quality against cost</h2>{shown}{table(lines[0], lines[2:])}"


def page(runs: list[dict[str, Any]], bench: Path | None) -> str:
    """The whole page, from the records of `trace.watch` with `label`, `summary`, `metrics`."""
    head = ["run", *(title for _, title in COLUMNS)]
    body = [[r["label"], *(number(r["summary"].get(n)) for n, _ in COLUMNS)] for r in runs]
    samples = "".join(
        f"<h3>{safe(run['label'])}</h3>"
        + "".join(f"<pre>{safe(path['text'])}</pre>" for path in run["paths"])
        for run in runs
    )
    title = "ldd_jax: " + " and ".join(run["label"] for run in runs)
    first = next((r for r in runs if not r["no_grid"]), runs[0])
    watched = f"{first['samples']} samples, {first['steps']} steps, seed {first['seed']}" + (
        "" if first["no_grid"] else f"; temporal KL over {first['every']} steps"
    )
    played = [{"label": r["label"], "paths": r["paths"]} for r in runs]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head><body><h1>{safe(title)}</h1>"
        f"<h2>Likelihood</h2>{table(head, body)}"
        '<p class="note">Bounds (exact = no) are those of the sampler that runs so many passes a '
        "step from h = 0; errors over sequences.</p>"
        f"{bounds(runs)}{training(runs)}<h2>Denoising, step by step</h2>{MARKUP}"
        f"<h2>Mechanism</h2><p class='note'>{watched}; bands: two standard "
        "errors over samples. Busy steps: those that change a row; the closed form holds for "
        f"ancestral masked sampling.</p>{mechanism(runs)}{counts(runs)}"
        f"{frontier(bench) if bench else ''}<h2>Samples</h2>{samples}"
        f"{over_training(runs)}"
        f'<script type="application/json" id="runs">{embedded(played)}</script>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def read_run(workdir: Path) -> dict[str, Any]:
    """Summary and metrics of a workdir, as far as they are there."""
    summary = workdir / "summary.json"
    try:
        found = reading.read_json(summary) if summary.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{summary} is not valid JSON: {error}") from error
    require(isinstance(found, dict), f"{summary} holds no JSON object")
    for name, _ in COLUMNS:
        value = found.get(name)
        require(
            value is None or type(value) is bool or is_number(value),
            f"{summary}: {name} is {value!r}, expected a number",
        )
    lines = workdir / "bounds.jsonl"
    try:
        text = reading.read_text(lines) if lines.is_file() else ""
        told = [parse_json(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{lines} cannot be read: {error}") from error
    whole = lambda r: (
        isinstance(r, dict) and all(n not in r or r[n] is None or is_number(r[n]) for n in BOUNDS)
    )
    require(all(map(whole, told)), f"{lines} holds what `evaluate --output` does not write")
    metrics = workdir / "metrics.jsonl"
    return {
        "summary": found,
        "bounds": told,
        "metrics": read_metrics(metrics) if metrics.is_file() else [],
        "history": history.read(workdir),
    }
