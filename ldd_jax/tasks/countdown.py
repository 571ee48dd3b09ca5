"""Countdown: make the target from all numbers (arXiv 2404.03683, 2410.14157)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from ldd_jax.core.registry import register
from ldd_jax.tasks import arithmetic

# Draws without a new problem after which a split counts as exhausted.
PATIENCE = 20_000


@register("task", "countdown")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Countdown:
    """`86,28,13,31,96|86+28=114,31-13=18,114-18=96`: numbers, then the target.

    Attributes:
      numbers: how many.
      largest: they lie in 1 .. largest.
      lowest_target: targets lie in lowest_target .. highest_target.
      highest_target: see above.
      held_out: share of the targets that validation has to itself.
      largest_result: no intermediate result is larger.
      orders: whether the same numbers in another order are another problem, within a split.
    """

    numbers: int = 4
    largest: int = 99
    lowest_target: int = 10
    highest_target: int = 100
    held_out: float = 0.1
    largest_result: int = 9999
    orders: bool = False

    symbols = "0123456789+-*/=,"
    reads = staticmethod(arithmetic.reads)
    lines = staticmethod(arithmetic.lines)
    strict = staticmethod(arithmetic.strict)
    legacy = staticmethod(arithmetic.legacy)

    def __post_init__(self):
        if self.numbers < 2 or self.largest < 1:
            raise ValueError(f"numbers={self.numbers}, largest={self.largest}; at least 2 and 1")
        if not 0 <= self.lowest_target < self.highest_target <= self.largest_result:
            raise ValueError(
                f"targets {self.lowest_target}..{self.highest_target} must ascend and lie below "
                f"largest_result={self.largest_result}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out}; it must lie between 0 and 1")

    @property
    def longest(self) -> int:
        """Numbers and target; then equations of three results at most."""
        digits = len(str(self.largest_result))
        problem = self.numbers * (len(str(self.largest)) + 1) + len(str(self.highest_target))
        return problem + (self.numbers - 1) * (3 * digits + 3) - 1

    def targets(self, split: str, seed: int) -> list[int]:
        """The targets of a split; together all, none in both."""
        every = list(range(self.lowest_target, self.highest_target + 1))
        random.Random(f"targets {seed}").shuffle(every)
        held = max(1, round(self.held_out * len(every)))
        return sorted(every[:held] if split == "validation" else every[held:])

    def problems(self, split: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
        """Distinct by the multiset of numbers (with `orders`: by their order) and the target."""
        rng = random.Random(f"{split} {seed}")
        targets = set(self.targets(split, seed))
        seen: set[tuple] = set()
        idle = 0
        while len(seen) < count and idle < PATIENCE:
            idle += 1
            numbers = [rng.randint(1, self.largest) for _ in range(self.numbers)]
            chain = self._reduce(rng, numbers)
            if chain is None or chain[-1].result not in targets:
                continue
            key = (*(numbers if self.orders else sorted(numbers)), chain[-1].result)
            if key in seen:
                continue
            seen.add(key)
            idle = 0
            problem = ",".join(map(str, (*numbers, chain[-1].result)))
            yield problem, ",".join(map(str, chain))

    def _reduce(self, rng: random.Random, numbers: list[int]) -> list[arithmetic.Equation] | None:
        """Join two numbers at random until one is left; None where a result does not do."""
        pool, chain = list(numbers), []
        while len(pool) > 1:
            rng.shuffle(pool)
            left, right = pool.pop(), pool.pop()
            operator = rng.choice(arithmetic.OPERATORS)
            if operator in "-/" and left < right:
                left, right = right, left
            result = arithmetic.apply(operator, left, right)
            if result is None or result > self.largest_result:
                return None
            chain.append(arithmetic.Equation(left, operator, right, result))
            pool.append(result)
        return chain
