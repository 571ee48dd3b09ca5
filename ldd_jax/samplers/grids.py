"""Time grids: t_i for step i of n, from 1 down to `end`; traceable in both i and n."""

from __future__ import annotations

import dataclasses

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
