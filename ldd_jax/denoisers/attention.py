"""Bidirectional attention behind one function; kernels are chosen by name."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import UserError, nearest
from ldd_jax.core.types import Array

Kernel = Callable[[Array, Array, Array, Array | None], Array]


def rotary(x_BLHK: Array, position: Array, base: float = 10_000.0) -> Array:
    """Rotary embedding, half-split pairs (RoFormer, arXiv 2104.09864), in float32.

    Args:
      x_BLHK: queries or keys.
      position: [L] or [B, L].
      base: wavelength base.
    """
    half = x_BLHK.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position[..., None].astype(jnp.float32) * frequency
    cos, sin = (f(angle)[..., None, :] for f in (jnp.cos, jnp.sin))
    x1, x2 = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
    return turned.astype(x_BLHK.dtype)


def segment_mask(segment_BL: Array) -> Array:
    """[B, 1, L, L] True where query and key are of one document; segment 0 is padding.

    Padding attends to padding, so that no row is empty; nothing else attends to it.
    """
    return segment_BL[:, None, :, None] == segment_BL[:, None, None, :]


def plain(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """softmax(q k^T / sqrt(K)) v, head-major, normalised after the value product.

    On CPU this runs several times as fast as the generic kernel: the softmax never divides an
    [L, L] array. Scores and sums in float32.
    """
    scale = q.shape[-1] ** -0.5
    q, k, v = (jnp.swapaxes(a, 1, 2) for a in (q, k, v))
    scores = jnp.einsum("bhqk,bhsk->bhqs", q * scale, k, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weight = jnp.exp(scores - top)
    total = jnp.sum(weight, axis=-1, keepdims=True)
    out = jnp.einsum(
        "bhqs,bhsk->bhqk", weight.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return jnp.swapaxes((out / total).astype(v.dtype), 1, 2)


def fused(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """jax.nn.dot_product_attention: cuDNN on a GPU when the types allow it, XLA elsewhere."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask)


KERNELS: dict[str, Kernel] = {"plain": plain, "fused": fused}


def kernel(name: str) -> Kernel:
    """The attention function called `name`.

    Raises:
      UserError: for an unknown name.
    """
    if name not in KERNELS:
        raise UserError(f"unknown attention {name!r}; {nearest(name, KERNELS)}")
    return KERNELS[name]
