"""Time grids: t_i for step i of n, from 1 down to `end`; traceable in both i and n."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array


@register("grid", "linear")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearGrid:
    """t_i = 1 - (1 - end) i / n (MDLM, Duo, LDDM with end = 1e-5)."""

    end: float = 1e-5

    def __call__(self, i: Array, n: Array) -> Array:
        """Time of grid point i in 0..n."""
        u = i / n
        return 1 - u + self.end * u


@register("grid", "cosine")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineGrid:
    """t_i = cos(pi/2 u), u = i / n (1 - end'): MD4's sampling grid, ending at `end`."""

    end: float = 1e-5

    def __call__(self, i: Array, n: Array) -> Array:
        """Time of grid point i in 0..n."""
        return self.end + (1 - self.end) * jnp.cos(jnp.pi / 2 * i / n)


@register("grid", "geometric")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometricGrid:
    """t_i = end^(i / n)."""

    end: float = 1e-3

    def __call__(self, i: Array, n: Array) -> Array:
        """Time of grid point i in 0..n."""
        return jnp.asarray(self.end) ** (i / n)


@register("grid", "table")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TableGrid:
    """Times of a table, t_0 = 1 first, never rising; straight lines between for other numbers n.

    With n = len(times) - 1 steps they are taken as they are. What `distill` learns is one.
    """

    times: tuple[float, ...] = (1.0, 1e-5)

    def __post_init__(self):
        times = self.times
        if not 2 <= len(times) <= _MOST:
            raise ValueError(f"times has {len(times)} entries; a grid has 2 to {_MOST}")
        if times[0] != 1 or times[-1] < 0 or not all(map(math.isfinite, times)):
            raise ValueError(
                f"times go from {times[0]} to {times[-1]}; they go from 1 to 0 or more"
            )
        rising = [b for a, b in zip(times, times[1:]) if b > a]
        if rising:
            raise ValueError(f"times rise to {rising[0]}; a grid goes from 1 down")

    def __call__(self, i: Array, n: Array) -> Array:
        """Time of grid point i in 0..n."""
        last = len(self.times) - 1
        place = i * last / n
        below = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last - 1)
        share = place - below
        t = jnp.asarray(self.times, jnp.result_type(place))
        return t[below] * (1 - share) + t[below + 1] * share


_MOST = 1 << 16
