"""A denoised row as frames for terminal and GIF: the steps of one path of `trace.watch`."""

from __future__ import annotations

import unicodedata
from typing import Any, NamedTuple

from ldd_jax.core.console import harmless

MASK, HIDDEN, NOTHING = "[MASK]", "\u00b7", "\u2205"


class Cell(NamedTuple):
    """One position: harmless text, entropy before the step in nats, the latent's RMS after it."""

    text: str
    hidden: bool
    changed: bool
    entropy: float | None
    norm: float | None


class Frame(NamedTuple):
    """One step of one row."""

    title: str
    cells: list[Cell]


def frames(label: str, path: dict[str, Any]) -> list[Frame]:
    """Frames of a path: the noise first, every step, and the last call.

    Args:
      label: of the run.
      path: one of `trace.watch`'s "paths": tokens [steps + 2][L], entropy and norm [steps][L], and
        after how many steps the row ended, where that was early.
    """
    out = []
    tokens, empty = path["tokens"], [None] * len(path["tokens"][0])
    norms = path.get("norm", [])
    for i, now in enumerate(tokens):
        before = tokens[max(i - 1, 0)]
        looked = lambda by_step, i=i: by_step[i - 1] if 0 < i <= len(by_step) else empty
        cells = [
            Cell(HIDDEN if t == MASK else harmless(t) or NOTHING, t == MASK, t != b, e, n)
            for t, b, e, n in zip(now, before, looked(path["entropy"]), looked(norms))
        ]
        changed, masks = (sum(c) for c in zip(*((c.changed, c.hidden) for c in cells)))
        of = f"step {i} of {len(tokens) - 1}, {changed} changed, {masks} masked"
        of += f", ended after {path['ended']}" if i > path.get("ended", i) else ""
        out.append(Frame(f"{harmless(label)}: {of}", cells))
    return out


def heat(entropy: float | None) -> float:
    """Share of full colour in [0, 1]; 1 from three nats on."""
    return 0.0 if entropy is None else min(max(entropy, 0.0) / 3, 1.0)


def wide(text: str) -> int:
    """Columns that a terminal gives it: two for wide letters, none for marks on the one before."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def wrapped(cells: list[Cell], columns: int) -> list[list[Cell]]:
    """Lines of at most so many columns; only a cell wider than that has more."""
    lines: list[list[Cell]] = [[]]
    used = 0
    for cell in cells:
        size = wide(cell.text)
        if lines[-1] and used + size > columns:
            lines.append([])
            used = 0
        lines[-1].append(cell)
        used += size
    return lines
