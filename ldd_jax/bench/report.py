"""From cells to a table, a frontier plot and a page that needs no network."""

from __future__ import annotations

import base64
import html
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ldd_jax.bench.baselines import BASELINES, QUOTES
from ldd_jax.bench.cells import NO_LATENT
from ldd_jax.core import writing
from ldd_jax.core.colours import colours
from ldd_jax.core.console import harmless
from ldd_jax.core.pictures import pyplot

Cell = dict[str, Any]


class Row(NamedTuple):
    """Cells that differ in their seeds alone."""

    model: str
    sampler: str
    temperature: float | None
    latent: str
    steps: int | None
    cells: list[Cell]

    @property
    def line(self) -> str:
        """What it is called in the plot: everything but the number of steps."""
        if self.model == "":
            return self.sampler
        latent = "" if self.latent == NO_LATENT else f", latent {self.latent}"
        hot = "" if self.temperature in (None, 1) else f", T={self.temperature:g}"
        return f"{self.model}, {self.sampler}{latent}{hot}"

    def mean(self, value: Callable[[Cell], float | None] | str) -> float:
        """Mean of a field over the cells; NaN where it does not apply."""
        get = (lambda c: c[value]) if isinstance(value, str) else value
        found = [get(c) for c in self.cells]
        known = [float(v) for v in found if v is not None]
        return statistics.mean(known) if known else math.nan

    def nats(self, judge: str) -> tuple[float, float]:
        """Mean nats per token and its standard error."""
        return mean_and_error([c["judges"][judge] for c in self.cells], "nats")

    def mauve(self) -> tuple[float, float]:
        """Mean MAUVE-style value and its standard error."""
        return mean_and_error(self.cells, "mauve")


def mean_and_error(found: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean and standard error of a field.

    Over the runs and seeds where there are several; the field's own, NAME_se, of the one otherwise.
    """
    mean = statistics.mean(f[name] for f in found)
    if len(found) == 1:
        return mean, found[0][f"{name}_se"]
    return mean, statistics.stdev(f[name] for f in found) / math.sqrt(len(found))


def model_names(cells: list[Cell]) -> dict[str, str]:
    """Group -> name: what of the recipes differs, or the workdir where that does not tell."""
    recipes = {c["group"]: c["recipe"] for c in cells if c["workdir"]}
    parts = {g: r.split(",") for g, r in recipes.items()}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    told = {
        g: " ".join(p.split("=")[-1] for p in ps if p not in common or p.startswith("method="))
        for g, ps in parts.items()
    }
    first = {c["group"]: c["workdir"] for c in reversed(cells) if c["workdir"]}
    clear = len(set(told.values())) == len(told)
    return {g: name if clear and name else first[g] for g, name in told.items()}


def rows(cells: list[Cell]) -> list[Row]:
    """Cells gathered over seeds, baselines first, then by model, sampler, latent and steps."""
    names = model_names(cells)
    groups: dict[tuple, Row] = {}
    for c in cells:
        key = (names.get(c["group"], ""), c["sampler"], c["temperature"], c["latent"], c["steps"])
        groups.setdefault(key, Row(*key, [])).cells.append(c)
    place = list(BASELINES).index
    return sorted(
        groups.values(),
        key=lambda r: (
            r.model,
            place(r.sampler) if r.model == "" else 0,
            r.sampler,
            r.temperature or 0,
            r.latent,
            r.steps or 0,
        ),
    )


HEADER = (
    "model",
    "sampler",
    "latent",
    "T",
    "steps",
    "calls",
    "gen. ppl",
    "nats +- s.e.",
    "entropy",
    "distinct-4",
    "self-BLEU",
    "repetition",
    "tokens/s",
    "s to first",
    "s a row",
    "cells",
)
MAUVE = "MAUVE-style +- s.e."
OWN = "own bound +- s.e."


def header(found: list[Row]) -> list[str]:
    """Names of the table's columns."""
    first = found[0].cells[0]
    return [
        *HEADER,
        *([MAUVE] if "mauve" in first else []),
        *([OWN] if "own" in first else []),
    ]


def fields(row: Row) -> list[str]:
    """The table's columns of a row."""
    judge = row.cells[0]["judge"]
    nats, error = row.nats(judge)
    number = lambda v, digits: "" if math.isnan(v) else f"{v:,.{digits}f}"
    return [
        row.model or "(none)",
        row.sampler,
        row.latent,
        "" if row.temperature is None else f"{row.temperature:g}",
        "" if row.steps is None else str(row.steps),
        number(row.mean("calls"), 0),
        number(math.exp(min(nats, 700)), 2),
        f"{nats:.3f} +- {error:.3f}",
        number(row.mean("entropy"), 3),
        number(row.mean(lambda c: c["distinct"][3]), 3),
        number(row.mean("self_bleu"), 3),
        number(row.mean("repetition"), 3),
        number(row.mean("tokens_per_s"), 0),
        number(row.mean(lambda c: c.get("first_s")), 3),
        number(row.mean(lambda c: c.get("latency_s")), 3),
        str(len(row.cells)),
        *(["{:.3f} +- {:.3f}".format(*row.mauve())] if "mauve" in row.cells[0] else []),
        *([_own(row)] if "own" in row.cells[0] else []),
    ]


def _own(row: Row) -> str:
    """The likelihood of the row's own sampler, or its bound; nothing where it is not known."""
    if row.cells[0]["own"] is None:
        return ""
    nats, error = mean_and_error(row.cells, "own")
    sign = "=" if row.cells[0]["own_exact"] else "<="
    return f"{sign} {nats:.3f} +- {error:.3f}"


def table(found: list[Row]) -> str:
    """Markdown."""
    names = header(found)
    lines = [names, ["---"] * len(names), *map(fields, found)]
    return "\n".join(
        "| " + " | ".join(harmless(c).replace("|", "\\|") for c in line) + " |" for line in lines
    )


def plot(found: list[Row], path: Path) -> None:
    """Per judge: nats against network calls, and against entropy, where a gamed metric shows."""
    judges = list(found[0].cells[0]["judges"])
    real = [r for r in found if r.model]
    lines: dict[str, list[Row]] = {}
    for row in real:
        lines.setdefault(row.line, []).append(row)
    keys = -(-(len(lines) + 3) // LEGEND_COLUMNS)  # rows of the legend, nonsense among them
    height = 5.2 * len(judges) + 0.2 * keys
    plt = pyplot()
    figure, grid = plt.subplots(len(judges), 2, figsize=(13, height), dpi=120, squeeze=False)
    colors = plt.get_cmap("tab10").colors + plt.get_cmap("Dark2").colors
    models = list(dict.fromkeys(r.model for r in real))
    own = colours([next(r for r in real if r.model == m).cells[0]["recipe"] for m in models])
    rules = list(dict.fromkeys((r.sampler, r.temperature) for r in real))
    styles = {"carry": ("-", "o"), "off": ("--", "s"), "frozen": (":", "^"), NO_LATENT: ("-", "D")}
    for judge, (by_calls, by_entropy) in zip(judges, grid):
        for name, members in lines.items():
            first = members[0]
            model, rule = models.index(first.model), rules.index((first.sampler, first.temperature))
            style, marker = styles.get(first.latent, ("-", "o"))
            if len(rules) > 1:  # colour tells the rules, the marker the models
                color, marker = colors[rule % len(colors)], MARKERS[model % len(MARKERS)]
            else:
                color = own[model]
            nats, errors = zip(*(r.nats(judge) for r in members))
            look: dict[str, Any] = dict(
                color=color, ls=style, marker=marker, ms=4, lw=1.3, capsize=2
            )
            calls = [r.mean("calls") for r in members]
            by_calls.errorbar(calls, nats, yerr=errors, label=name, **look)
            by_entropy.errorbar([r.mean("entropy") for r in members], nats, yerr=errors, **look)
        # Nonsense may lie far off: its star then stands at the edge, with its entropy beside it.
        real_x = [r.mean("entropy") for r in found if r.model or r.sampler == "data"]
        pad = 0.25 * (max(real_x) - min(real_x)) + 0.01
        low, high = min(real_x) - pad, max(real_x) + pad
        for row in (r for r in found if not r.model):
            nats_, _ = row.nats(judge)
            entropy = row.mean("entropy")
            grey = {"data": "black", "unigram": "grey", "frequent": "firebrick"}[row.sampler]
            by_calls.axhline(
                nats_, color=grey, lw=1, ls=(0, (1, 2)), label=f"{row.sampler} (no model)"
            )
            x = min(max(entropy, low), high)
            name = row.sampler if x == entropy else f"{row.sampler} (entropy {entropy:.2f})"
            by_entropy.plot(x, nats_, "*", ms=13, color=grey, clip_on=False)
            right = x > (low + high) / 2
            by_entropy.annotate(
                name,
                (x, nats_),
                xytext=(-9 if right else 9, 6),
                textcoords="offset points",
                color=grey,
                ha="right" if right else "left",
            )
        by_entropy.set_xlim(low, high)
        by_calls.set_xscale("log", base=2)
        by_calls.set(xlabel="network calls", ylabel=f"nats per token under {judge}")
        by_entropy.set(xlabel="unigram entropy of a sample, nats", ylabel="")
        by_calls.set_title("quality against cost (lower = more probable)", fontsize=10)
        by_entropy.set_title(
            "quality against diversity (good: at the star of the data)", fontsize=10
        )
        for axes in (by_calls, by_entropy):
            axes.grid(alpha=0.3)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=LEGEND_COLUMNS, fontsize=8)
    figure.tight_layout(rect=(0, 0.2 * (keys + 1) / height, 1, 1))
    with writing.replacing(path, binary=True) as stream:
        figure.savefig(stream, format="png")
    plt.close(figure)


LEGEND_COLUMNS, MARKERS = 4, "oDs^vP*X"

STYLE = """body{font:14px sans-serif;margin:2em;max-width:1300px}img{max-width:100%}
table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;padding:3px 8px;text-align:right}
td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}pre{white-space:pre-wrap;background:#f4f4f4;
padding:6px;margin:2px 0}summary{cursor:pointer}"""


# What the page may load: nothing. It has no script.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HIDDEN = "(text of the corpus, not shown; --show_data writes it here)"


def page(found: list[Row], image: bytes, title: str, show_data: bool = False) -> str:
    """One HTML file: picture, table, a sample of every row; all text is escaped.

    Args:
      found: rows of the table.
      image: the picture, PNG.
      title: of the page.
      show_data: texts of the corpus among the samples.
    """
    safe = lambda text: html.escape(str(text))
    head = "".join(f"<th>{safe(h)}</th>" for h in header(found))
    body = "".join(
        "<tr>" + "".join(f"<td>{safe(v)}</td>" for v in fields(row)) + "</tr>" for row in found
    )
    sample = lambda row: (
        HIDDEN if row.sampler in QUOTES and not show_data else row.cells[0]["sample"]
    )
    samples = "".join(
        f"<details><summary>{safe(row.line)}"
        f"{'' if row.steps is None else f', {row.steps} steps'}</summary>"
        f"<pre>{safe(sample(row))}</pre></details>"
        for row in found
    )
    picture = base64.b64encode(image).decode()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{safe(title)}</title>"
        f"<style>{STYLE}</style></head><body><h1>{safe(title)}</h1>"
        "<p>Lower nats under a judge are no proof of quality: read them beside entropy, diversity "
        "and the nonsense rows. Errors: over runs and seeds where a row has several cells, "
        "otherwise a bootstrap over sequences.</p>"
        f'<img alt="frontier" src="data:image/png;base64,{picture}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<h2>First sample of each row</h2>{samples}</body></html>\n"
    )


def write(cells: list[Cell], folder: Path, show_data: bool = False) -> str:
    """Write `table.md`, `frontier.png` and `frontier.html` (see `page`); returns the table.

    Args:
      cells: results, at least one.
      folder: where the files go; it must be there.
      show_data: texts of the corpus among the samples of the page.
    """
    found = rows(cells)
    text = table(found)
    writing.write(folder / "table.md", text + "\n")
    plot(found, folder / "frontier.png")
    image = (folder / "frontier.png").read_bytes()
    title = (
        f"Frontier: {found[0].cells[0]['samples']} samples of {cells[0]['length']} tokens a cell"
    )
    writing.write(folder / "frontier.html", page(found, image, title, show_data))
    return text
