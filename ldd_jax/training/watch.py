"""What the host sees of each update: sums between two log lines, skipped updates, spikes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from ldd_jax.core.checks import is_number

# A spike is so many standard deviations above the mean, both over about 1 / RATE updates.
SPIKE, RATE, WARM_UP = 6.0, 0.02, 50

T = TypeVar("T", "Interval", "Watch")


def kept(kind: type[T], saved: Any) -> T:
    """What a checkpoint's record says of a class of this module; empty where that makes no sense.

    Args:
      kind: the class.
      saved: `vars` of its instance, as JSON gave it back.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    given = saved if isinstance(saved, Mapping) else {}
    good = all(name in names and is_number(value) for name, value in given.items())
    return kind(**given) if good else kind()


@dataclasses.dataclass
class Interval:
    """Sums since the last logged step, on the host in float64; saved with the checkpoint.

    A skipped update counts as such and is in no mean.
    """

    loss: float = 0.0
    scored: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0
    skipped: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        """One update."""
        if not values["finite"]:
            self.skipped += 1
            return
        self.loss += values["loss"]
        self.scored += values["scored"]
        self.grad_norm += values["grad_norm"]
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Means of the interval, and the number of skipped updates if there were any."""
        n = self.steps or math.nan
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return {
            "train_loss": self.loss / n,
            "scored_share": self.scored / n,
            "grad_norm": self.grad_norm / n,
        } | skipped


@dataclasses.dataclass
class Watch:
    """Skipped updates, in all and in a row, and the loss's running mean and variance."""

    skipped: int = 0
    in_row: int = 0
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, values: Mapping[str, float]) -> float:
        """One update; returns how many standard deviations its loss is above, if that is a spike.

        0 otherwise.
        """
        if not values["finite"]:
            self.skipped += 1
            self.in_row += 1
            return 0.0
        self.in_row = 0
        above, spread = values["loss"] - self.mean, math.sqrt(self.variance)
        height = above / spread if self.seen >= WARM_UP and spread else 0.0
        self.seen += 1
        rate = max(RATE, 1 / self.seen)
        self.mean += rate * above
        self.variance = (1 - rate) * (self.variance + rate * above * above)
        return height if height > SPIKE else 0.0
