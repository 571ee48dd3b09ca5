"""What a task offers: problems of two splits, and two verdicts on a solution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

# Between problem and solution, in rows and in files.
SEPARATOR = "|"


class Task(Protocol):
    """One kind of problem; text only, no tokens."""

    registered: tuple[str, str]

    @property
    def symbols(self) -> str:
        """Every character that problems and solutions may hold, the separator not."""
        ...

    @property
    def longest(self) -> int:
        """Characters of the longest problem and solution together, the separator not."""
        ...

    def problems(self, split: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
        """Distinct pairs of a problem and a solution.

        Args:
          split: "train" or "validation"; no problem of one is in the other.
          count: at most so many; fewer if the split holds fewer.
          seed: of the choice.
        """
        ...

    def reads(self, problem: str) -> bool:
        """Whether a text is a problem of this task, solvable or not."""
        ...

    def lines(self, solution: str) -> list[str]:
        """A solution as lines for a reader: equations, rows of a grid."""
        ...

    def strict(self, problem: str, solution: str) -> bool:
        """Whether the solution solves the problem, by the rules."""
        ...

    def legacy(self, problem: str, solution: str) -> bool:
        """Whether the check of the published code accepts it."""
        ...
