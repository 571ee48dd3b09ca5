"""Rotary frequencies and how they are scaled for rows longer than those of pretraining.

The rules are those of transformers (`modeling_rope_utils`, 5.24), in float32 and in its order of
operations, since a network was trained on their rounding.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array


def plain(channels: int, base: Any) -> Any:
    """base^(-2 i / channels), i < channels / 2, float32.

    Args:
      channels: of a head that are turned, an even number.
      base: a number, or an array of no dimensions.
    """
    exponent = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
    if isinstance(base, float):
        return np.float32(1) / np.float32(base) ** exponent
    return 1 / base ** jnp.asarray(exponent)


class Scaling:
    """What the rules share: a factor that is at least 1."""

    factor: float
    original: int

    def check(self) -> None:
        """Refuse a factor below 1 or a length that is none."""
        if not self.factor >= 1:
            raise ValueError(f"factor is {self.factor}; it must be at least 1")
        if self.original < 1:
            raise ValueError(f"original is {self.original}; it must be at least 1 position")


@register("frequencies", "plain")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain:
    """Not scaled."""

    def __call__(self, channels: int, base: float, last: Array) -> tuple[Any, float]:
        """Frequencies [channels / 2], and what cosine and sine are multiplied by.

        Args:
          channels: of a head that are turned.
          base: of the wavelengths.
          last: the last position of the rows.
        """
        del last
        return plain(channels, base), 1.0


@register("frequencies", "linear")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Scaling):
    """All divided by a factor: positions are interpolated.

    Attributes:
      factor: that divides them.
    """

    factor: float = 1.0
    original = 1

    def __post_init__(self):
        self.check()

    def __call__(self, channels: int, base: float, last: Array) -> tuple[Any, float]:
        """See `Plain`.

        Args:
          channels: of a head that are turned.
          base: of the wavelengths.
          last: the last position of the rows.
        """
        del last
        return plain(channels, base) / np.float32(self.factor), 1.0


@register("frequencies", "dynamic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamic(Scaling):
    """Dynamic NTK: a larger base for rows of more than `original` positions.

    base (factor n / original - factor + 1)^(d / (d - 2)) for rows of n positions, d channels.

    Attributes:
      factor: of the length.
      original: positions of pretraining.
    """

    factor: float = 1.0
    original: int = 2048

    def __post_init__(self):
        self.check()

    def __call__(self, channels: int, base: float, last: Array) -> tuple[Any, float]:
        """See `Plain`.

        Args:
          channels: of a head that are turned.
          base: of the wavelengths.
          last: the last position of the rows.
        """
        length = jnp.maximum(last + 1, self.original).astype(jnp.float32)
        grown = self.factor * length / self.original - (self.factor - 1)
        return plain(channels, base * grown ** (channels / (channels - 2))), 1.0


@register("frequencies", "llama3")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3(Scaling):
    """Long waves divided by `factor`, short ones kept, those between interpolated.

    Attributes:
      factor: of waves longer than original / low.
      low: turns within the original length, below which a wave is long.
      high: turns above which it is short.
      original: positions of pretraining.
    """

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def __post_init__(self):
        self.check()
        if not 0 < self.low < self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; 0 < low < high")

    def __call__(self, channels: int, base: float, last: Array) -> tuple[Any, float]:
        """See `Plain`.

        Args:
          channels: of a head that are turned.
          base: of the wavelengths.
          last: the last position of the rows.
        """
        del last
        found = plain(channels, base)
        wave = np.float32(2 * math.pi) / found
        turns = np.float32(self.original) / wave
        smooth = (turns - np.float32(self.low)) / np.float32(self.high - self.low)
        long = found / np.float32(self.factor)
        between = (1 - smooth) * long + smooth * found
        scaled = np.where(turns < self.low, long, np.where(turns > self.high, found, between))
        return scaled.astype(np.float32), 1.0


@register("frequencies", "yarn")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Yarn(Scaling):
    """YaRN (arXiv 2309.00071): waves by their turns within the original length, and a factor.

    Attributes:
      factor: of the length.
      original: positions of pretraining.
      fast: turns above which a wave is kept.
      slow: turns below which it is divided by `factor`.
      attention: cosine and sine are multiplied by it; 0 = 0.1 log(factor) + 1.
      truncate: round the two borders outward to whole channels.
    """

    factor: float = 1.0
    original: int = 4096
    fast: float = 32.0
    slow: float = 1.0
    attention: float = 0.0
    truncate: bool = True

    def __post_init__(self):
        self.check()
        if not 0 < self.slow < self.fast:
            raise ValueError(f"slow is {self.slow} and fast {self.fast}; 0 < slow < fast")
        if self.attention < 0:
            raise ValueError(f"attention is {self.attention}; above 0, or 0 for the usual one")

    def __call__(self, channels: int, base: float, last: Array) -> tuple[Any, float]:
        """See `Plain`.

        Args:
          channels: of a head that are turned.
          base: of the wavelengths.
          last: the last position of the rows.
        """
        del last
        found = plain(channels, base)

        def border(turns: float) -> float:
            waves = math.log(self.original / (turns * 2 * math.pi))
            return channels * waves / (2 * math.log(base))

        low, high = border(self.fast), border(self.slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, channels - 1)
        high += 0.001 if low == high else 0
        place = np.arange(channels // 2, dtype=np.float32)
        ramp = np.clip((place - np.float32(low)) / np.float32(high - low), 0, 1)
        scaled = found / np.float32(self.factor) * ramp + found * (1 - ramp)
        return scaled.astype(np.float32), self.attention or attention_factor(self.factor, 1.0)


def attention_factor(factor: float, scale: float) -> float:
    """What YaRN multiplies cosine and sine by: 0.1 scale log(factor) + 1.

    Args:
      factor: of the length, at least 1.
      scale: 1 where a config says nothing.
    """
    return 0.1 * scale * math.log(factor) + 1
