"""Layers of a network over patches of bytes: n-grams, windows, and the ways up and down (BLT)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.logical import constrain
from ldd_jax.core.types import Array
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.attention import masked
from ldd_jax.denoisers.linears import QKV
from ldd_jax.denoisers.rotary import rotary

_PRIME = 0x01000193  # odd, so that a power of it loses nothing mod 2^32


def ngram_hashes(z_BL: Array, size: int, buckets: int) -> Array:
    """Bucket of the `size` tokens that end at each position, uint32 [B, L].

    sum_j (z[i - j] + 1) prime^j mod 2^32, mixed, mod `buckets`; before the row stands 0.

    Args:
      z_BL: tokens.
      size: of the n-gram.
      buckets: of its table.
    """
    symbol = jnp.pad(z_BL.astype(jnp.uint32) + 1, ((0, 0), (size - 1, 0)))
    length, total = z_BL.shape[1], jnp.zeros(z_BL.shape, jnp.uint32)
    for j in range(size):  # the farthest first
        total = total * jnp.uint32(_PRIME) + symbol[:, j : j + length]
    total = (total ^ (total >> 15)) * jnp.uint32(0x2C1B3C6D)
    return (total ^ (total >> 13)) % jnp.uint32(buckets)


def banded(
    q: Array, k: Array, v: Array, width: int, causal: bool, unit_BL: Array | None = None
) -> Array:
    """Attention to keys at most `width` positions away, by blocks of that size.

    A block of queries meets its own keys and those of its neighbours, so that the work grows with
    L and not with L^2.

    Args:
      q: [B, L, heads, K].
      k: like q.
      v: like q.
      width: of the window, to either side.
      causal: keys before the query and its own only.
      unit_BL: keys of the query's own patch only; None = of all.
    """
    batch, length = q.shape[:2]
    if length <= 2 * width:
        gap = jnp.arange(length)[:, None] - jnp.arange(length)
        near = _near(gap, width, causal)[None, None]
        if unit_BL is not None:
            near = near & (unit_BL[:, :, None] == unit_BL[:, None])[:, None]
        return masked(q, k, v, near)
    blocks = -(-length // width)
    sides = (-1, 0) if causal else (-1, 0, 1)

    def laid(a):
        a = jnp.pad(a, ((0, 0), (0, blocks * width - length), (0, 0), (0, 0)))
        return a.reshape(batch, blocks, width, *a.shape[2:])

    def beside(a):
        a = jnp.pad(laid(a), ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        return jnp.concatenate([a[:, 1 + s : 1 + s + blocks] for s in sides], axis=2)

    place = jnp.arange(blocks)[:, None] * width + jnp.arange(width)
    other = (jnp.arange(blocks)[:, None] - 1) * width + jnp.arange(len(sides) * width)
    real = (other >= 0) & (other < length)
    gap = place[:, :, None] - other[:, None, :]
    own = gap == 0  # a query beyond the row sees itself, so that no row is empty
    seen = (_near(gap, width, causal) & real[:, None, :]) | own
    fold = lambda a: a.reshape(batch * blocks, *a.shape[2:])
    if unit_BL is None:
        mask = jnp.tile(seen, (batch, 1, 1))[:, None]
    else:
        column = unit_BL[:, :, None, None]
        same = laid(column)[:, :, :, 0, 0][..., :, None] == beside(column)[:, :, None, :, 0, 0]
        mask = fold((seen & same) | own)[:, None]
    out = masked(fold(laid(q)), fold(beside(k)), fold(beside(v)), mask)
    return out.reshape(batch, blocks * width, *q.shape[2:])[:, :length]


def _near(gap: Array, width: int, causal: bool) -> Array:
    return (gap <= width) & (gap >= (0 if causal else -width))


def window_keys(length: int, width: int, causal: bool) -> int:
    """Keys that `banded` multiplies each query with.

    Args:
      length: of the row.
      width: of the window.
      causal: as of `banded`.
    """
    return length if length <= 2 * width else width * (2 if causal else 3)


class LocalBlock(nn.Module):
    """Transformer block without conditioning whose attention is a window."""

    width: int
    heads: int
    mlp_ratio: int
    window: int
    causal: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, unit_BL: Array | None = None) -> Array:
        """[B, L, d] to [B, L, d]; with `unit_BL` each patch by itself."""
        d = self.width
        y = layers.Norm(name="norm1")(x)
        q, k, v = layers.Heads(self.heads, self.dtype, name=QKV)(y)
        place = jnp.arange(x.shape[1])
        q, k = rotary(q, place), rotary(k, place)
        y = banded(q, k, v, self.window, self.causal, unit_BL)
        x = x + layers.dense(d, d, "out", self.dtype, bias=False)(y.reshape(x.shape))
        y = layers.Norm(name="norm2")(x)
        y = layers.dense(self.mlp_ratio * d, d, "mlp_in", self.dtype)(y)
        y = layers.dense(d, self.mlp_ratio * d, "mlp_out", self.dtype)(layers.gelu(y))
        return constrain(x + y, "batch", "length", None)


def by_patch(reduce: Any, x_BLD: Array, unit_BL: Array, count: int) -> Array:
    """A sum or maximum over the positions of each patch, [B, P, ...].

    Args:
      reduce: `jax.ops.segment_sum` or `segment_max`.
      x_BLD: [B, L, ...].
      unit_BL: patch of each position.
      count: P.
    """
    return jax.vmap(lambda x, u: reduce(x, u, num_segments=count))(x_BLD, unit_BL)


def of_patch(x_BPD: Array, unit_BL: Array) -> Array:
    """Each position's patch's row, [B, L, ...]."""
    return jax.vmap(lambda x, u: x[u])(x_BPD, unit_BL)


def patch_max(x_BLD: Array, unit_BL: Array, count: int) -> Array:
    """Maximum over each patch, 0 where there is none; ties share the gradient.

    Args:
      x_BLD: of positions.
      unit_BL: patch of each position.
      count: P.
    """
    top = by_patch(jax.ops.segment_max, jax.lax.stop_gradient(x_BLD), unit_BL, count)
    best = x_BLD == of_patch(top, unit_BL)
    total = by_patch(jax.ops.segment_sum, jnp.where(best, x_BLD, 0), unit_BL, count)
    ties = by_patch(jax.ops.segment_sum, best.astype(x_BLD.dtype), unit_BL, count)
    return total / jnp.maximum(ties, 1)


class Pool(nn.Module):
    """Bytes of a patch into one vector: their maximum, and what it attends to among them."""

    width: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, unit_BL: Array, count: int) -> Array:
        """[B, L, d] to [B, P, D].

        Args:
          x: bytes.
          unit_BL: patch of each.
          count: P.
        """
        d = x.shape[-1]
        split = lambda a: a.reshape(*a.shape[:2], self.heads, -1)
        y = layers.Norm(name="norm_bytes")(x)
        top = patch_max(y, unit_BL, count)
        q = of_patch(split(layers.dense(d, d, "q", self.dtype, bias=False)(top)), unit_BL)
        kv = layers.dense(2 * d, d, "kv", self.dtype, bias=False)(y)
        k, v = map(split, jnp.split(kv, 2, axis=-1))
        score = jnp.einsum("blhk,blhk->blh", q, k, preferred_element_type=jnp.float32)
        score = score * k.shape[-1] ** -0.5
        most = by_patch(jax.ops.segment_max, jax.lax.stop_gradient(score), unit_BL, count)
        weight = jnp.exp(score - of_patch(most, unit_BL))
        total = by_patch(jax.ops.segment_sum, weight, unit_BL, count)
        mean = by_patch(jax.ops.segment_sum, weight[..., None] * v, unit_BL, count)
        mean = mean / jnp.where(total > 0, total, 1)[..., None]
        mean = mean.reshape(*mean.shape[:2], d).astype(self.dtype)
        up = lambda name, a: layers.dense(self.width, d, name, self.dtype, bias=False)(a)
        return up("out", mean) + up("residual", top)


class Unpool(nn.Module):
    """Every byte attends to the `views` pieces of its patch's vector."""

    heads: int
    views: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, latent_BPD: Array, unit_BL: Array) -> Array:
        """What bytes [B, L, d] learn from their patches, [B, L, d]; patch -1 is before all.

        Args:
          x: bytes.
          latent_BPD: patches.
          unit_BL: the patch that each byte reads.
        """
        d, views = x.shape[-1], self.views
        begin = self.param("begin", layers.bias_init(latent_BPD.shape[-1]), latent_BPD.shape[-1:])
        first = jnp.broadcast_to(begin, (len(x), 1, *begin.shape)).astype(latent_BPD.dtype)
        y = jnp.concatenate([first, latent_BPD], axis=1)
        y = y.reshape(*y.shape[:2], views, -1)
        kv = layers.dense(2 * d, y.shape[-1], "kv", self.dtype, bias=False)(y)
        kv = of_patch(kv, unit_BL + 1).reshape(*x.shape[:2], views, 2, self.heads, -1)
        q = layers.dense(d, d, "q", self.dtype, bias=False)(layers.Norm(name="norm")(x))
        q = q.reshape(*x.shape[:2], self.heads, -1)
        score = jnp.einsum("blhk,blvhk->blhv", q, kv[:, :, :, 0]) * q.shape[-1] ** -0.5
        weight = jax.nn.softmax(score.astype(jnp.float32), axis=-1).astype(self.dtype)
        y = jnp.einsum("blhv,blvhk->blhk", weight, kv[:, :, :, 1]).reshape(x.shape)
        return layers.dense(d, d, "out", self.dtype, bias=False)(y)
