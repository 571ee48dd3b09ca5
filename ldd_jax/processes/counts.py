"""Poisson counts with the mean of a row, drawn by inversion from tails that hold in float32."""

from __future__ import annotations

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Array


def ceiling(mean: float) -> int:
    """A count that Poisson(mean) exceeds with probability below 1e-15."""
    return math.ceil(mean + 10 * math.sqrt(mean) + 30)


@cache
def _rest(most: int) -> np.ndarray:
    """Log n! - (n log n - n) at n = 1 .. most: what Stirling's first terms leave, exact."""
    from scipy.special import gammaln

    n = np.arange(1, most + 1, dtype=np.float64)
    return gammaln(n + 1) - n * np.log(n) + n


def log_poisson(mean_B: Array, most: int) -> Array:
    """Log P(n) for n = 0 .. most, [B, most + 1].

    By the deviance n log(n / mean) - (n - mean) (Loader 2000), not as the difference of n log mean
    and log n!, which loses digits in float32 from n = 100 on.
    """
    n = jnp.arange(1, most + 1, dtype=mean_B.dtype)
    mean = mean_B[:, None]
    ratio = mean / n
    near = jnp.abs(ratio - 1) < 0.5
    apart = jnp.where(near, ratio - 1, 0)
    close = n * (apart - jnp.log1p(apart))
    far = mean - n - n * jnp.log(jnp.where(near, 1, ratio))
    deviance = jnp.where(near, close, far)
    rest = jnp.asarray(_rest(most), mean_B.dtype)
    return jnp.concatenate([-mean, -deviance - rest], axis=1)


def tails(mean_B: Array, most: int) -> Array:
    """P(count > n) for n = 0 .. most - 1, [B, most], summed from the small end."""
    p = jnp.exp(log_poisson(mean_B, most))
    above = jnp.flip(jnp.cumsum(jnp.flip(p, 1), axis=1), 1)
    return above[:, 1:] / above[:, :1]


def draw(u_BL: Array, mean_B: Array, most: int) -> Array:
    """Counts [B, L] of Poisson(mean_B), in the type of the mean.

    Args:
      u_BL: uniforms in [0, 1).
      mean_B: events that a position of the row has on average.
      most: no count is larger.
    """
    below = jnp.flip(tails(mean_B, most), 1)
    place = jax.vmap(lambda row, u: jnp.searchsorted(row, u, side="right"))(below, u_BL)
    return (most - place).astype(mean_B.dtype)
