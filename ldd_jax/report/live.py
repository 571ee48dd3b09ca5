"""The two views of a run in progress: lines of a terminal, and a page that loads itself again."""

from __future__ import annotations

import textwrap

from ldd_jax.core.console import harmless
from ldd_jax.report import chart
from ldd_jax.report.frames import wide
from ldd_jax.report.status import SPEED, Status, said

SHOWN = 3  # samples below the chart
WIDEST = 100  # columns of the chart


def cut(text: str, columns: int) -> str:
    """Harmless text in one line that no terminal of so many columns breaks."""
    text = harmless(text)
    if wide(text) <= columns:
        return text
    kept, used = [], 0
    for letter in text:
        used += wide(letter)
        if used > columns:
            break
        kept.append(letter)
    return "".join(kept)


def lines(status: Status, columns: int) -> list[str]:
    """What a terminal shows: facts, curves, the last samples.

    Args:
      status: of the run.
      columns: of the terminal.
    """
    facts = status.facts()
    margin = max(len(name) for name, _ in facts) + 2
    out = [f"{status.name}: {status.recipe}"]
    for name, value in facts:
        parts = textwrap.wrap(harmless(value), max(columns - margin, 20))
        out += [
            f"{shown:{margin}s}{part}" for shown, part in zip([name, *[""] * len(parts)], parts)
        ]
    curves = [(".", "training loss", status.losses), ("o", "validation", status.bounds)]
    drawn = chart.draw([(mark, points) for mark, _, points in curves], width=min(columns, WIDEST))
    if drawn:
        legend = "   ".join(f"{mark} {name}" for mark, name, points in curves if points)
        out += ["", *drawn, f"{legend}, by update"]
    if status.samples:
        step, texts = status.samples[-1]
        out += ["", f"samples at update {step:,}", *(f"  {text!r}" for text in texts[:SHOWN])]
    return [cut(line, columns) for line in out]


def page(status: Status, every: int) -> str:
    """One HTML page that needs nothing else and reads itself again until the run has finished.

    Args:
      status: of the run.
      every: seconds after which a browser reads the file again.
    """
    from ldd_jax.report import (
        page as pages,
    )  # draws with matplotlib, which a terminal does not need

    again = "" if status.finished else f'<meta http-equiv="refresh" content="{every}">'
    run = {
        "label": status.name,
        "recipe": status.recipe,
        "metrics": status.lines,
        "history": status.samples,
    }
    title = f"{status.name}: update {status.step:,} of {status.steps:,}"
    curves = pages.training([run]) if status.losses or status.bounds else ""
    body = [[f"{step:,}", said(record)] for step, record in status.evaluations()]
    evaluations = (
        f"<h2>Evaluations</h2>{pages.table(['update', ''], body, 'texts')}" if body else ""
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        f'<meta http-equiv="Content-Security-Policy" content="{pages.POLICY}">'
        f"<title>{pages.safe(title)}</title><style>{pages.STYLE}</style></head>"
        f"<body><h1>{pages.safe(title)}</h1><p class='note'>{pages.safe(status.recipe)}</p>"
        f"{pages.table(['', ''], [list(fact) for fact in status.facts()], 'texts')}{curves}"
        f"{pages.speed(status.known(SPEED))}{evaluations}{pages.over_training([run])}"
        "</body></html>\n"
    )
