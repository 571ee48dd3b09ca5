"""The curve of a run as a PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ldd_jax.core import writing
from ldd_jax.core.pictures import pyplot


def plot(
    records: list[dict[str, Any]], path: Path, *, title: str, baseline: float | None = None
) -> None:
    """Training loss and validation bound against steps, with the unigram entropy as a line.

    Args:
      records: lines of metrics.jsonl.
      path: PNG to write.
      title: above the plot.
      baseline: unigram entropy of the validation tokens, nats per token.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=130)
    # A diverged run has null where JSON has no word for the number: those points are left out.
    # So is the error of a single row.
    or_nan = lambda value: math.nan if value is None else value
    known = lambda name, *more: [
        (r["step"], r[name], *(or_nan(r.get(n)) for n in more))
        for r in records
        if r.get(name) is not None
    ]
    train = known("train_loss")
    valid = known("validation/nelbo_nats_per_token", "validation/nelbo_se")
    if train:
        axes.plot(*zip(*train), lw=1, alpha=0.7, label="training loss (mean of an interval)")
    if valid:
        steps, nats, errors = zip(*valid)
        axes.errorbar(
            steps, nats, yerr=errors, fmt="o-", capsize=3, label="validation NELBO +- s.e."
        )
        axes.annotate(
            f"{nats[-1]:.3f}",
            (steps[-1], nats[-1]),
            xytext=(-4, -14),
            textcoords="offset points",
            ha="right",
        )
    if baseline is not None:
        axes.axhline(baseline, ls="--", lw=1, color="grey", label=f"unigram entropy {baseline:.3f}")
    if len(train) > 1:
        highest = max([v for _, v in train[1:]] + [v for _, v, _ in valid] + [baseline or 0])
        lowest = min([v for _, v in train] + [v for _, v, _ in valid])
        axes.set_ylim(lowest - 0.1, highest + 0.1)
    axes.set(xlabel="update", ylabel="nats per token", title=title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    figure.tight_layout()
    with writing.replacing(path, binary=True) as stream:
        figure.savefig(stream, format="png")
    plt.close(figure)
