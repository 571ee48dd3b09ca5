"""Which checkpoints stay: the newest, every k-th update's, and those with the best validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass
class Retention:
    """What stays of numbered checkpoints.

    Attributes:
      newest: so many of the newest; 0 = all.
      every: those whose number is a multiple of it; 0 = none for that.
      best: so many of those with the lowest score; 0 = none for that.
      scores: by number, of those that have one.
    """

    newest: int = 2
    every: int = 0
    best: int = 0
    scores: dict[int, float] = dataclasses.field(default_factory=dict)

    def stay(self, steps: Sequence[int]) -> list[bool]:
        """Of each number, sorted, whether it stays; of equal scores the older is the better."""
        known = sorted((self.scores[s], s) for s in steps if s in self.scores)
        kept = {s for _, s in known[: self.best]} | set(steps[-self.newest :])
        return [s in kept or bool(self.every and s % self.every == 0) for s in steps]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """As Orbax asks for it (`PreservationPolicy`)."""
        del context
        return self.stay([c.step for c in checkpoints])

    @property
    def first(self) -> int | None:
        """The number with the best score; None = none has one."""
        return min(self.scores, key=lambda s: (self.scores[s], s), default=None)
