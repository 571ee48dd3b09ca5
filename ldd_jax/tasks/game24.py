"""Game of 24: make 24 from four numbers of 1 to 13."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator

from ldd_jax.core.registry import register
from ldd_jax.tasks import arithmetic

TARGET = 24


def hands(largest: int = 13) -> Iterator[tuple[int, ...]]:
    """All multisets of four numbers, 1,820 of 1 .. 13."""
    return itertools.combinations_with_replacement(range(1, largest + 1), 4)


@register("task", "game24")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Game24:
    """`4,9,10,13,24|...`, as in Countdown; hands solvable in integers, 1,346 of 1 .. 13.

    Attributes:
      largest: numbers lie in 1 .. largest.
      held_out: share of the hands that validation has to itself.
    """

    largest: int = 13
    held_out: float = 0.1

    symbols = "0123456789+-*/=,"
    reads = staticmethod(arithmetic.reads)
    lines = staticmethod(arithmetic.lines)
    strict = staticmethod(arithmetic.strict)
    legacy = staticmethod(arithmetic.legacy)

    def __post_init__(self):
        if self.largest < 3:
            raise ValueError(f"largest={self.largest}; nothing makes 24 below 3")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out}; it must lie between 0 and 1")

    @property
    def longest(self) -> int:
        """Four numbers and the target; then three equations of results up to largest^3."""
        digits = len(str(self.largest**3))
        return 4 * (len(str(self.largest)) + 1) + 2 + 3 * (3 * digits + 3) - 1

    def problems(self, split: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
        """A hand once, in a random order, with one of its solutions at random."""
        rng = random.Random(f"hands {seed}")
        solvable = [h for h in hands(self.largest) if next(arithmetic.solve(h, TARGET), None)]
        rng.shuffle(solvable)
        held = max(1, round(self.held_out * len(solvable)))
        own = solvable[:held] if split == "validation" else solvable[held:]
        for hand in own[:count]:
            numbers = list(hand)
            rng.shuffle(numbers)
            chain = rng.choice(list(arithmetic.solve(numbers, TARGET)))
            yield ",".join(map(str, (*numbers, TARGET))), ",".join(map(str, chain))
