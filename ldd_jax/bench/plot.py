"""The frontier of a bench as a picture: quality against cost, and against diversity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldd_jax.bench import baselines
from ldd_jax.bench.cells import NO_LATENT
from ldd_jax.bench.rows import Row
from ldd_jax.core import writing
from ldd_jax.core.colours import colours
from ldd_jax.core.pictures import pyplot

LEGEND_COLUMNS, MARKERS = 4, "oDs^vP*X"
# Of the baselines, in their order; far from the colours of models.
GREYS = ("black", "grey", "firebrick", "darkslateblue", "saddlebrown")


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
        real_x = [r.mean("entropy") for r in found if r.model or r.sampler in baselines.QUOTES]
        pad = 0.25 * (max(real_x) - min(real_x)) + 0.01
        low, high = min(real_x) - pad, max(real_x) + pad
        for row in (r for r in found if not r.model):
            nats_, _ = row.nats(judge)
            entropy = row.mean("entropy")
            grey = GREYS[baselines.place(row.sampler) % len(GREYS)]
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
