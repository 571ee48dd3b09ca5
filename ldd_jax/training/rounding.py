"""Narrow numbers that small changes still move: rounded up or down at random, right on average.

An update that is smaller than half of what bfloat16 tells apart would be lost to rounding, each
time. Rounded up with the probability of the part that is cut off, it arrives in expectation
(Gupta et al. 2015, arXiv 1502.02551).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array

CUT = 16  # bits of a float32 that bfloat16 lacks


def at_random(x: Array, key: Array) -> Array:
    """Float32 to bfloat16, up or down with expectation x; what is not finite stays so.

    Args:
      x: float32.
      key: PRNG key; the draws depend on the place in x alone.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    draw = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    cut = jax.lax.bitcast_convert_type((bits + draw) >> CUT << CUT, jnp.float32)
    return jnp.where(jnp.isfinite(x), cut, x).astype(jnp.bfloat16)


def wide(tree: Any) -> Any:
    """Numbers in bfloat16 as float32; all others as they are."""
    up = lambda a: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a
    return jax.tree.map(up, tree)


def narrow(tree: Any, like: Any, key: Array, first: int = 0) -> Any:
    """Numbers in the types of `like`, those of bfloat16 rounded at random.

    Args:
      tree: arrays.
      like: arrays of the same structure.
      key: PRNG key; each leaf has its own.
      first: number of the first leaf, for the parts of a larger tree.
    """

    def one(number: int, a: Any, b: Any) -> Any:
        if a.dtype == b.dtype or b.dtype != jnp.bfloat16:
            return a
        return at_random(a, jax.random.fold_in(key, number))

    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(leaves, jax.tree.leaves(like), strict=True)
    return jax.tree.unflatten(structure, [one(i, a, b) for i, (a, b) in enumerate(pairs, first)])
