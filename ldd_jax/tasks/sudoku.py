"""Sudoku with one solution, 4 x 4 or 9 x 9: digits row by row, 0 for an empty cell."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Iterator

from ldd_jax.core.registry import register

PATIENCE = 2_000


@functools.cache
def units(size: int) -> list[list[int]]:
    """Cells of every row, column and box."""
    box = round(size**0.5)
    line = range(size)
    rows = [[r * size + c for c in line] for r in line]
    columns = [[r * size + c for r in line] for c in line]
    boxes = [
        [(top + i) * size + left + j for i in range(box) for j in range(box)]
        for top in range(0, size, box)
        for left in range(0, size, box)
    ]
    return rows + columns + boxes


@functools.cache
def peers(size: int) -> list[tuple[int, ...]]:
    """Cells that share a unit with each cell."""
    groups = units(size)
    return [
        tuple({other for u in groups if cell in u for other in u} - {cell})
        for cell in range(size * size)
    ]


def solutions(grid: list[int], size: int, rng: random.Random | None = None) -> Iterator[list[int]]:
    """Every completion of a grid, by backtracking on the cell with fewest choices.

    Args:
      grid: digits by row, 0 = empty; changed while it is walked.
      size: digits there are; the grid has size^2 cells.
      rng: the order in which digits are tried; None = rising.
    """
    near = peers(size)
    best: list[int] | None = None
    at = -1
    for cell, digit in enumerate(grid):
        if digit:
            continue
        taken = {grid[p] for p in near[cell]}
        open_ = [d for d in range(1, size + 1) if d not in taken]
        if best is None or len(open_) < len(best):
            best, at = open_, cell
            if len(open_) < 2:
                break
    if best is None:
        yield list(grid)
        return
    if rng is not None:
        rng.shuffle(best)
    for digit in best:
        grid[at] = digit
        yield from solutions(grid, size, rng)
    grid[at] = 0


@register("task", "sudoku")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sudoku:
    """`0030...|1234...`: the givens, then all digits.

    Attributes:
      size: 4 or 9.
      givens: digits that stay, or more where fewer would leave two solutions.
      held_out: share of the solved grids that validation has to itself, chosen by hash.
    """

    size: int = 9
    givens: int = 32
    held_out: float = 0.1

    def __post_init__(self):
        if self.size not in (4, 9):
            raise ValueError(f"size={self.size}; it must be 4 or 9")
        if not 0 < self.givens < self.size**2:
            raise ValueError(f"givens={self.givens}; it must lie between 0 and {self.size**2}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out}; it must lie between 0 and 1")

    @property
    def symbols(self) -> str:
        """Digits from 0."""
        return "0123456789"[: self.size + 1]

    @property
    def longest(self) -> int:
        """Two grids."""
        return 2 * self.size**2

    def problems(self, split: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
        """Distinct puzzles with one solution."""
        rng = random.Random(f"{split} {seed}")
        seen: set[str] = set()
        idle = 0
        while len(seen) < count and idle < PATIENCE:
            idle += 1
            solved = next(solutions([0] * self.size**2, self.size, rng))
            text = "".join(map(str, solved))
            digest = hashlib.sha256(f"{seed} {text}".encode()).digest()
            held = int.from_bytes(digest[:4], "big") < self.held_out * 2**32
            if held != (split == "validation"):
                continue
            puzzle = "".join(map(str, self._dig(rng, solved)))
            if puzzle in seen:
                continue
            seen.add(puzzle)
            idle = 0
            yield puzzle, text

    def _dig(self, rng: random.Random, solved: list[int]) -> list[int]:
        """Empty cells in random order as long as one solution is left."""
        grid, left = list(solved), len(solved)
        for cell in rng.sample(range(left), left):
            if left == self.givens:
                break
            digit, grid[cell] = grid[cell], 0
            found = solutions(list(grid), self.size)
            next(found)
            if next(found, None) is not None:
                grid[cell] = digit
            else:
                left -= 1
        return grid

    def _grid(self, text: str, low: int) -> list[int] | None:
        good = len(text) == self.size**2 and all(c in self.symbols[low:] for c in text)
        return [int(c) for c in text] if good else None

    def reads(self, problem: str) -> bool:
        """Whether a text is a grid of digits and zeros."""
        return self._grid(problem, 0) is not None

    def lines(self, solution: str) -> list[str]:
        """Row by row."""
        return [solution[i : i + self.size] for i in range(0, len(solution), self.size)]

    def strict(self, problem: str, solution: str) -> bool:
        """Every row, column and box holds every digit once, and the givens stay."""
        given, grid = self._grid(problem, 0), self._grid(solution, 1)
        if given is None or grid is None:
            return False
        whole = all(len({grid[c] for c in unit}) == self.size for unit in units(self.size))
        return whole and all(g in (0, d) for g, d in zip(given, grid, strict=True))

    def legacy(self, problem: str, solution: str) -> bool:
        """Equality with the solution, which is the only one."""
        given = self._grid(problem, 0)
        if given is None or self._grid(solution, 1) is None or self._clash(given):
            return False
        found = next(solutions(given, self.size), None)
        return found is not None and solution == "".join(map(str, found))

    def _clash(self, given: list[int]) -> bool:
        near = peers(self.size)
        return any(d and any(given[p] == d for p in near[c]) for c, d in enumerate(given))
