"""The only way to the vocabulary, for objectives and samplers alike.

Both functions take a row-wise `fn` of logits and walk the rows in tiles, so that no [B, L, V]
array exists, and only the rows that count: those with a weight, or those that move. `rows_loss`
forms loss and gradients in the same sweep: the head is projected once per scored row and never
recomputed.

Rows are walked in `groups` equal groups side by side, one per data shard; where `length` is told
and positions are cut over the mesh, each of them in as many. The trip count is the fullest group's,
the same everywhere, and a group only touches its own shard: no collective stands inside a loop
whose length depends on the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.logical import gathered, scattered
from ldd_jax.core.row_groups import Groups
from ldd_jax.core.types import Array, Head

# Scopes of the row loops, whose length depends on the data.
SCORED, CHOSEN = "scored_rows", "chosen_rows"

# As a tile: chosen by rows and vocabulary.
AUTO = -1
ENOUGH = 1 << 28  # bytes of float32 logits that exist at a time


def automatic(rows: int, vocabulary: int) -> int:
    """Rows of a tile; 0 = all at once, where their logits take at most 256 MiB."""
    fit = max(ENOUGH // (4 * vocabulary), 1)
    return 0 if rows <= fit else fit - fit % 128 if fit > 128 else fit


def check_tile(tile: int) -> None:
    """Refuse what is no tile.

    Raises:
      ValueError: in words.
    """
    if tile < AUTO:
        raise ValueError(
            f"tile is {tile}; it must be -1 (chosen by rows and vocabulary), 0 (all rows at once) "
            "or more"
        )


def _resolved(tile: int, head: Head, features_ND: Array, groups: int) -> int:
    if tile != AUTO:
        return tile
    logits = jax.eval_shape(lambda x: head(x[:1]), features_ND)
    widest = max(leaf.shape[-1] for leaf in jax.tree.leaves(logits))
    return automatic(features_ND.shape[0] // groups, widest)


@dataclasses.dataclass(frozen=True)
class Visit:
    """The set rows of every group, a tile at a time.

    order_GN holds the indices of the set rows first; count_G their number.
    """

    order: Array
    count: Array
    size: int
    tile: int

    @classmethod
    def of(cls, on_GN: Array, tile: int) -> Visit:
        """Compaction by one scatter, no sort, no row lost whatever their number."""
        size = on_GN.shape[1]
        tile = min(tile, size)
        rank = jnp.cumsum(on_GN, axis=1)
        count = rank[:, -1]
        off = count[:, None] + jnp.cumsum(~on_GN, axis=1)
        place = jnp.where(on_GN, rank, off) - 1
        index = jnp.arange(size)
        put = lambda p: jnp.zeros_like(index).at[p].set(index, unique_indices=True)
        order = jnp.pad(jax.vmap(put)(place), ((0, 0), (0, -size % tile)), constant_values=size)
        return cls(order=order, count=count, size=size, tile=tile)

    @property
    def trips(self) -> Array:
        """Tiles of the fullest group."""
        return -(-jnp.max(self.count) // self.tile)

    def at(self, i: Array) -> tuple[Array, Array, Array]:
        """Of tile i: which places are set rows, where to read, and where to write.

        Spare places read a real row, since zeros in its stead (a time, say) may have no finite
        gradient, and write out of bounds, where nothing is kept.
        """
        j = jax.lax.dynamic_slice_in_dim(self.order, i * self.tile, self.tile, axis=1)
        spare = jnp.arange(self.tile)[None]
        live = i * self.tile + spare < self.count[:, None]
        return live, jnp.where(live, j, self.order[:, :1]), jnp.where(live, j, self.size + spare)


_gather = jax.vmap(lambda a, j: a[j])
_scatter = jax.vmap(lambda a, j, v: a.at[j].set(v, mode="drop", unique_indices=True))


def _outputs(fn: Callable, head: Head, features_ND: Array, args: Any) -> Any:
    """Shapes and types of fn for one row, with that row's axis."""
    one = lambda tree: jax.tree.map(lambda a: a[:1], tree)
    return jax.eval_shape(lambda x, a: fn(head(one(x)), one(a)), features_ND, args)


def rows(
    fn: Callable,
    head: Head,
    features_ND: Array,
    args: Any,
    *,
    where: Array | None = None,
    tile: int = 0,
    groups: int = 1,
    length: int = 0,
) -> Any:
    """fn(head(features), args), in tiles; tile 0 = one plain call, -1 = chosen.

    Args:
      fn: row-wise, (logits [n, V], args) -> pytree of [n, ...].
      head: features -> logits.
      features_ND: rows.
      args: pytree of arrays with N leading rows (draws included).
      where: [N] rows that are wanted, None = all; the others' output has no meaning.
      tile: rows per tile.
      groups: see the module.
      length: likewise; 0 = rows are of no sequences.
    """
    total = features_ND.shape[0]
    split = Groups.of(total, groups, length)
    tile = _resolved(tile, head, features_ND, split.count)
    if not tile:
        return fn(head(features_ND), args)
    head = gathered(head)
    x, y = split.laid((features_ND, args))
    on = jnp.ones(total, bool) if where is None else where
    visit = Visit.of(split.laid(on), tile)

    def body(i, out):
        _, read, write = visit.at(i)
        tiles = jax.tree.map(lambda a: _gather(a, read), (x, y))
        found = jax.vmap(lambda x, y: fn(head(x), y))(*tiles)
        return jax.tree.map(lambda o, v: _scatter(o, write, v), out, found)

    shapes = _outputs(fn, head, features_ND, args)
    size = (split.count, visit.size)
    empty = jax.tree.map(lambda s: jnp.zeros((*size, *s.shape[1:]), s.dtype), shapes)
    trips = visit.trips if where is not None else -(-visit.size // visit.tile)
    with jax.named_scope(CHOSEN):
        out = jax.lax.fori_loop(0, trips, body, split.placed(empty))
    return split.back(out)


def rows_loss(
    fn: Callable,
    head: Head,
    features_ND: Array,
    args: Any,
    weight_N: Array,
    *,
    tile: int = 0,
    groups: int = 1,
    length: int = 0,
) -> tuple[Array, Array]:
    """Total = sum_n weight_n * fn(head(x_n), args_n), and the losses of the rows.

    Only rows with weight != 0 are visited; the others' loss is reported as 0. The weights must be
    final (normaliser included): gradients are formed with them in the forward sweep and the
    backward rule multiplies by the scalar cotangent only. Weights and args get no gradient.

    Args:
      fn: row-wise, (logits [n, V], args) -> loss [n].
      head: a pytree; gradients reach its leaves.
      features_ND: rows, gradients reach them.
      args: pytree with N leading rows.
      weight_N: final weights.
      tile: rows per tile; 0 = one plain call with ordinary autodiff, -1 = chosen.
      groups: see the module.
      length: likewise; 0 = rows are of no sequences.

    Returns:
      (total, loss_N); loss_N carries no gradient.
    """
    split = Groups.of(features_ND.shape[0], groups, length)
    tile = _resolved(tile, head, features_ND, split.count)
    if not tile:
        loss = fn(head(features_ND), args)
        loss = jnp.where(weight_N != 0, loss, 0)
        return jnp.sum(weight_N * loss), jax.lax.stop_gradient(loss)
    return _sweep(fn, tile, split, head, features_ND, args, weight_N)


def _walk(fn, tile, split, head, features_ND, args, weight_N, gradients: bool):
    """Visit the weighted rows; total, losses and, if asked, gradients of head and rows."""
    head = gathered(head)
    x, y, w = split.laid((features_ND, args, weight_N))
    groups = split.count
    visit = Visit.of(w != 0, tile)
    wide = lambda p: jnp.zeros((groups, *p.shape), jnp.promote_types(p.dtype, jnp.float32))

    def body(i, carry):
        total, loss_GN, d_head, dx = carry
        live, read, write = visit.at(i)
        xt, yt, wt = jax.tree.map(lambda a: _gather(a, read), (x, y, w))
        wt = jnp.where(live, wt, 0)

        def tile_loss(head, xt, yt, wt):
            loss = jnp.where(wt != 0, fn(head(xt), yt), 0)
            return jnp.sum(wt * loss), loss

        if gradients:
            both = jax.value_and_grad(tile_loss, argnums=(0, 1), has_aux=True)
            (value, loss), (gh, gx) = jax.vmap(both, in_axes=(None, 0, 0, 0))(head, xt, yt, wt)
            d_head = jax.tree.map(lambda a, g: a + g.astype(a.dtype), d_head, gh)
            dx = _scatter(dx, write, gx.astype(dx.dtype))
        else:
            value, loss = jax.vmap(partial(tile_loss, head))(xt, yt, wt)
        return total + value, _scatter(loss_GN, write, loss), d_head, dx

    dtype = _outputs(fn, head, features_ND, args).dtype
    carry = (
        jnp.zeros(groups, dtype),
        jnp.zeros((groups, visit.size), dtype),
        jax.tree.map(wide, head) if gradients else (),
        jnp.zeros_like(x) if gradients else (),
    )
    with jax.named_scope(SCORED):
        carry = jax.lax.fori_loop(0, visit.trips, body, split.placed(carry))
    total, loss, d_head, dx = carry
    if gradients:
        d_head = jax.tree.map(lambda a, p: jnp.sum(a, 0).astype(p.dtype), d_head, head)
        d_head, dx = scattered(d_head, split.back(dx))
    return jnp.sum(total), split.back(loss), d_head, dx


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sweep(fn, tile, split, head, features_ND, args, weight_N):
    total, loss, _, _ = _walk(fn, tile, split, head, features_ND, args, weight_N, False)
    return total, loss


def _sweep_forward(fn, tile, split, head, features_ND, args, weight_N):
    total, loss, d_head, dx = _walk(fn, tile, split, head, features_ND, args, weight_N, True)
    return (total, loss), (d_head, dx)


def _sweep_backward(fn, tile, split, residuals, cotangents):
    d_head, dx = residuals
    scale = lambda g: g * cotangents[0].astype(g.dtype)
    return jax.tree.map(scale, d_head), scale(dx), None, None


_sweep.defvjp(_sweep_forward, _sweep_backward)
