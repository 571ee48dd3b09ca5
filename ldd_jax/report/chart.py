"""Curves in plain ASCII, for a terminal of any kind."""

from __future__ import annotations

from collections.abc import Sequence

Points = Sequence[tuple[int, float]]
BLANK = " "


def draw(curves: Sequence[tuple[str, Points]], *, width: int, height: int = 10) -> list[str]:
    """Lines of a chart; later curves cover earlier ones, values beyond the edge stand on it.

    The first point of the first curve does not stretch the axis: it is a loss before any learning.

    Args:
      curves: a letter and its (step, value) each.
      width: columns of the whole chart.
      height: rows of the field.

    Returns:
      `height` lines with the axis at their left, and one with the steps; none without a point.
    """
    points = [p for _, points in curves for p in points]
    if not points:
        return []
    values = [v for i, (_, points) in enumerate(curves) for _, v in points[not i :]] or [
        v for _, v in points
    ]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    first, last = min(s for s, _ in points), max(s for s, _ in points)
    names = [f"{v:.3f}" for v in (high, low)]
    margin = max(map(len, names))
    columns = max(width - margin - 2, 8)
    field = [[BLANK] * columns for _ in range(height)]
    for letter, own in curves:
        cells: dict[int, list[float]] = {}
        for step, value in own:
            share = (step - first) / (last - first) if last > first else 0.0
            cells.setdefault(round(share * (columns - 1)), []).append(value)
        for column, there in cells.items():
            share = (high - sum(there) / len(there)) / (high - low)
            field[round(min(max(share, 0.0), 1.0) * (height - 1))][column] = letter
    labels = [names[0], *[""] * (height - 2), names[1]]
    lines = [f"{label:>{margin}} |{''.join(row).rstrip()}" for label, row in zip(labels, field)]
    ends = f"{first:,}", f"{last:,}"
    return [*lines, " " * (margin + 2) + ends[0] + ends[1].rjust(columns - len(ends[0]))]
