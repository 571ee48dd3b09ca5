"""Uniforms of a batch, stratified over all of it: one in each of as many bins as examples."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

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
    """U = frac(shift + rank / total): one point in each of `total` bins, cyclically shifted.

    Args:
      shift: in [0, 1), one for all.
      rank: of each point, [B] in 0 .. total - 1.
      total: number of bins.
    """
    return jnp.mod(shift + rank / total, 1.0)


def stratified(key: Array, index_B: Array, total: int) -> Array:
    """Uniforms [B] of some examples of a batch; one shift per step for all.

    Args:
      key: PRNG key of the update.
      index_B: of the examples in the global batch.
      total: size of that batch.
    """
    shift = jax.random.uniform(key)
    return stratify(shift, jnp.asarray(strata(total), jnp.float32)[index_B], total)
