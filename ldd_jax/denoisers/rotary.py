"""Rotary embedding of queries and keys (RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

import jax.numpy as jnp

from ldd_jax.core.types import Array

ROTARY_BASE = 10_000.0


def rotary(x_BLHK: Array, position: Array, base: float = ROTARY_BASE, torus: int = 0) -> Array:
    """Rotary embedding, half-split pairs (RoFormer, arXiv 2104.09864), in float32.

    On a torus the positions are the raster of a periodic square: the first half of the pairs turns
    by the row and the second by the column, 1, 2, .. side / 2 times round the border, so that
    scores know by how much two sites are apart and no border.

    Args:
      x_BLHK: queries or keys.
      position: [L] or [B, L].
      base: wavelength base.
      torus: its side; 0 = a line.
    """
    half = x_BLHK.shape[-1] // 2
    if torus:
        turns = 1 + jnp.arange(half // 2) % max(torus // 2, 1)
        place = jnp.stack([position // torus, position % torus], axis=-1)
        angle = place[..., None] * turns * (2 * jnp.pi / torus)
        angle = angle.reshape(*position.shape, half).astype(jnp.float32)
    else:
        frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
        angle = position[..., None].astype(jnp.float32) * frequency
    return turned(x_BLHK, jnp.cos(angle), jnp.sin(angle))


def turned(x_BLHK: Array, cos: Array, sin: Array) -> Array:
    """The first channels of a head turned in pairs (i, i + half), in float32; the others stay.

    Args:
      x_BLHK: queries or keys.
      cos: [L, half] or [B, L, half]; twice `half` channels are turned.
      sin: likewise.
    """
    cos, sin = cos[..., None, :], sin[..., None, :]
    x = x_BLHK.astype(jnp.promote_types(x_BLHK.dtype, jnp.float32))
    half = cos.shape[-1]
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    out = jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], axis=-1)
    return out.astype(x_BLHK.dtype)
