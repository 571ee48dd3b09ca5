"""Times of a batch: stratified over the global batch, then placed on [0, 1]."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array


@cache
def strata(total: int) -> np.ndarray:
    """Stratum of every global index: a permutation of 0..total-1 in bit-reversed order.

    Neighbouring examples get distant times, so that every contiguous shard of the batch holds
    nearly the same number of masked rows.
    """
    bits = max(total - 1, 0).bit_length()
    index = np.arange(total)
    reverse = np.zeros(total, np.int64)
    for b in range(bits):
        reverse |= ((index >> b) & 1) << (bits - 1 - b)
    rank = np.empty(total, np.int64)
    rank[np.argsort(reverse, kind="stable")] = index
    return rank


def stratify(shift: Array, rank: Array, total: int) -> Array:
    """U = frac(shift + rank / total): one point in each of `total` bins, cyclically shifted."""
    return jnp.mod(shift + rank / total, 1.0)


def stratified(key: Array, index_B: Array, total: int) -> Array:
    """Uniforms [B] of the examples at these global indices; one shift per step for all."""
    shift = jax.random.uniform(key)
    return stratify(shift, jnp.asarray(strata(total), jnp.float32)[index_B], total)


@register("times", "uniform")
@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """t = eps + (1 - eps) (1 - u), u in [0, 1): uniform on (eps, 1].

    The published recipes clip at eps = 1e-3, a relative bias of that order; 0 has none.
    """

    eps: float = 1e-3

    def __post_init__(self):
        if not 0 <= self.eps < 1:
            raise ValueError(f"eps is {self.eps}; it must lie in [0, 1)")

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and the factor that the integrand is multiplied by (1)."""
        del schedule
        return self.eps + (1 - self.eps) * (1 - u_B), jnp.ones_like(u_B)


@register("times", "importance")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceTimes:
    """log(1 - alpha_t) uniform between its values at `eps` and 1, so that every masked row weighs
    the same: the factor is (log noise(1) - log noise(eps)) / weight(t) (MDLM, appendix).
    """

    eps: float = 1e-3

    def __post_init__(self):
        if not 0 < self.eps < 1:
            raise ValueError(f"eps is {self.eps}; it must lie in (0, 1)")

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and dt/du."""
        low, high = (jnp.log(schedule.noise(jnp.asarray(t, u_B.dtype))) for t in (self.eps, 1.0))
        t = schedule.inverse(jnp.exp(low + u_B * (high - low)))
        return t, (high - low) / schedule.weight(t)
