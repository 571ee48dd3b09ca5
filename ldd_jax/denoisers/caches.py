"""Keys and values of positions that are not asked again, and attention to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.logical import constrain
from ldd_jax.core.types import Array, Attend

Part = tuple[Array, Array, Array]  # keys and values [B, groups, n, K], who of [Lq, n] sees them


class Rows(NamedTuple):
    """Keys and values of new positions, [..., B, groups, n, K], head-major as a cache has them."""

    k: Array
    v: Array

    @classmethod
    def of(cls, k: Array, v: Array) -> Rows:
        """From [B, n, groups, K]."""
        return cls(jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2))


class Cache(NamedTuple):
    """Keys and values [..., B, groups, L, K] of the positions seen; the leading axis is the layer.

    The first `seen` of L places are filled. Layers read it and hand back their new rows, which
    enter all at once (`filled`): what only asks leaves no copy of it behind.
    """

    k: Array
    v: Array
    seen: Array

    @classmethod
    def empty(cls, depth: int, batch: int, length: int, heads: int, channels: int, dtype: str):
        """Of so many layers and places, rows laid over the devices as those of the batch are.

        Args:
          depth: layers.
          batch: B.
          length: L, places.
          heads: of keys and values.
          channels: K, of a head.
          dtype: of keys and values.
        """
        zero = jnp.zeros((depth, batch, heads, length, channels), jnp.dtype(dtype))
        zero = constrain(zero, None, "batch", None, None, None)
        return cls(zero, zero, jnp.zeros(depth, jnp.int32))

    @property
    def begin(self) -> Array:
        """Place of the first new position."""
        return self.seen[0]

    def check(self, looks_back: bool) -> None:
        """Networks that look back only.

        Raises:
          ValueError: for another.
        """
        if not looks_back:
            raise ValueError("a bidirectional network keeps no cache (model.causal is False)")

    def attend(self, q: Array, k: Array, v: Array, attend: Attend) -> tuple[Array, Rows]:
        """Attention of new positions to all before and to themselves, and their own rows.

        A position sees those here up to the end of its block, or up to itself.

        Args:
          q: of the new positions, [B, n, heads, K].
          k: of the new positions, [B, n, groups, K].
          v: of the new positions, [B, n, groups, K].
          attend: causal, or by blocks of a known size.
        """
        size, own = attend.size or 1, Rows.of(k, v)
        past = jnp.arange(self.k.shape[2]) < self.seen
        number = (self.seen + jnp.arange(q.shape[1])) // size
        here = number[None, :] <= number[:, None]
        parts = [(self.k, self.v, past[None]), (own.k, own.v, here)]
        if q.shape[1] == self.k.shape[2]:  # all that it has room for: there is nothing before
            del parts[0]
        return joint(q, parts).astype(v.dtype), own

    def few(self, rows: Array) -> Cache:
        """Of some rows of the batch, [N]."""
        return self._replace(k=self.k[:, rows], v=self.v[:, rows])

    def filled(self, new: Rows) -> Cache:
        """With new rows after those that it holds.

        Args:
          new: of all layers, [depth, B, groups, n, K].
        """
        put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
            old, new.astype(old.dtype), self.begin, axis=3
        )
        return Cache(put(self.k, new.k), put(self.v, new.v), self.seen + new.k.shape[3])


class Around(NamedTuple):
    """Keys and values [..., B, groups, L, K] of a whole row, of which a window is asked again.

    Of a network that sees both ways, so that they are those of the call that made them, no more:
    what stands in the window has changed since. A window at `start` sees all places outside it as
    they are kept, and itself; its own rows take their places.
    """

    k: Array
    v: Array
    start: Array

    @property
    def begin(self) -> Array:
        """Place of the first position of the window."""
        return self.start[0]

    def at(self, start: Array | int) -> Around:
        """The same with the window elsewhere."""
        return self._replace(start=jnp.full_like(self.start, start))

    def check(self, looks_back: bool) -> None:
        """Networks that see both ways only.

        Raises:
          ValueError: for another.
        """
        if looks_back:
            raise ValueError("a network that looks back keeps an exact cache (blocks=cached)")

    def attend(self, q: Array, k: Array, v: Array, attend: Attend) -> tuple[Array, Rows]:
        """Attention of the window to the row, and its rows.

        Args:
          q: of the window, [B, n, heads, K].
          k: of the window, [B, n, groups, K].
          v: of the window, [B, n, groups, K].
          attend: full, whatever it says.
        """
        del attend
        own, length = Rows.of(k, v), q.shape[1]
        place = jnp.arange(self.k.shape[2])
        kept = (place < self.start) | (place >= self.start + length)
        parts = [(self.k, self.v, kept[None]), (own.k, own.v, jnp.ones((1, length), bool))]
        if length == len(place):  # the whole row: nothing is outside
            del parts[0]
        return joint(q, parts).astype(v.dtype), own

    def filled(self, new: Rows) -> Around:
        """With the window's rows in their places.

        Args:
          new: of all layers, [depth, B, groups, n, K].
        """
        put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(
            old, new.astype(old.dtype), self.begin, axis=3
        )
        return self._replace(k=put(self.k, new.k), v=put(self.v, new.v))


def around(cache: Cache) -> Around:
    """An empty cache of a row of as many places."""
    return Around(cache.k, cache.v, jnp.zeros_like(cache.seen))


def joint(q: Array, parts: Sequence[Part]) -> Array:
    """softmax(q k^T / sqrt(K)) v over the keys of all parts together; scores and sums in float32.

    The parts are not put side by side, which would copy them; heads of a group share its keys as
    they are.

    Args:
      q: [B, Lq, heads, K].
      parts: of keys and values, at least one of which every query sees.

    Returns:
      [B, Lq, heads, K], at least float32.
    """
    batch, length, heads, channels = q.shape
    groups = parts[0][0].shape[1]
    each = heads // groups
    wide = jnp.promote_types(q.dtype, jnp.float32)
    product = partial(jnp.einsum, preferred_element_type=wide)
    q = jnp.swapaxes(q * channels**-0.5, 1, 2).reshape(batch, groups, each * length, channels)
    scores = [
        jnp.where(jnp.tile(mask, (each, 1)) if mask.shape[0] > 1 else mask, found, -jnp.inf)
        for found, mask in ((product("bgqk,bgsk->bgqs", q, k), mask) for k, _, mask in parts)
    ]
    top = jnp.max(jnp.stack([jnp.max(s, axis=-1) for s in scores]), axis=0)[..., None]
    weights = [jnp.exp(s - top) for s in scores]
    total = sum(jnp.sum(w, axis=-1, keepdims=True) for w in weights)
    values = zip(weights, (v for _, v, _ in parts))
    sums = sum(product("bgqs,bgsk->bgqk", w.astype(v.dtype), v) for w, v in values)
    out = jnp.asarray(sums / total).reshape(batch, groups * each, length, channels)
    return jnp.swapaxes(out, 1, 2)
