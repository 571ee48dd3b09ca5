"""The only way to the vocabulary, for objectives and samplers alike.

Both functions take a row-wise `fn` of logits and walk the rows in tiles, so that no [B, L, V]
array exists. `rows_loss` visits only rows whose weight is not zero and forms loss and gradients in
the same sweep: the head is projected once per scored row and never recomputed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array, Head


def rows(fn: Callable, head: Head, features_ND: Array, args: Any, *, tile: int = 0) -> Any:
    """fn(head(features), args) in tiles of `tile` rows; tile 0 = one plain call.

    Args:
      fn: row-wise, (logits [n, V], args) -> pytree of [n, ...].
      head: features -> logits.
      features_ND: rows.
      args: pytree of arrays with N leading rows (draws included).
      tile: rows per tile.
    """
    total = features_ND.shape[0]
    if not tile or total <= tile:
        return fn(head(features_ND), args)
    count = -(-total // tile)
    index = jnp.minimum(jnp.arange(count * tile), total - 1).reshape(count, tile)
    take = lambda i: jax.tree.map(lambda a: a[i], (features_ND, args))

    def one(i):
        x, a = take(i)
        return fn(head(x), a)

    out = jax.lax.map(one, index)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:total], out)


def rows_loss(
    fn: Callable,
    head: Head,
    features_ND: Array,
    args: Any,
    weight_N: Array,
    *,
    tile: int = 0,
    groups: int = 1,
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
      tile: rows per tile; 0 = one plain call with ordinary autodiff.
      groups: rows are walked in `groups` equal groups side by side, one per data shard, so that no
        collective stands inside the loop, whose trip count is the fullest group's.

    Returns:
      (total, loss_N); loss_N carries no gradient.
    """
    if not tile:
        loss = fn(head(features_ND), args)
        loss = jnp.where(weight_N != 0, loss, 0)
        return jnp.sum(weight_N * loss), jax.lax.stop_gradient(loss)
    if features_ND.shape[0] % groups:
        raise ValueError(f"{features_ND.shape[0]} rows do not divide into {groups} groups")
    return _sweep(fn, tile, groups, head, features_ND, args, weight_N)


def _order(on_GN: Array) -> tuple[Array, Array]:
    """Indices of the set rows first, in order, by one scatter; and their number per group."""
    rank = jnp.cumsum(on_GN, axis=1)
    count = rank[:, -1]
    off = count[:, None] + jnp.cumsum(~on_GN, axis=1)
    place = jnp.where(on_GN, rank, off) - 1
    index = jnp.arange(on_GN.shape[1])
    order = jax.vmap(lambda p: jnp.zeros_like(index).at[p].set(index, unique_indices=True))(place)
    return order, count


def _walk(fn, tile, groups, head, features_ND, args, weight_N, gradients: bool):
    """Visit the set rows tile by tile; total, losses and, if asked, gradients of head and rows."""
    split = lambda a: a.reshape(groups, -1, *a.shape[1:])
    x, y, w = (jax.tree.map(split, a) for a in (features_ND, args, weight_N))
    size = w.shape[1]
    tile = min(tile, size)
    order, count = _order(w != 0)
    order = jnp.pad(order, ((0, 0), (0, -size % tile)), constant_values=size)
    gather = jax.vmap(lambda a, j: a[j])
    scatter = jax.vmap(lambda a, j, v: a.at[j].set(v, mode="drop", unique_indices=True))
    zeros_like_head = lambda p: jnp.zeros(
        (groups, *p.shape), jnp.promote_types(p.dtype, jnp.float32)
    )

    def body(i, carry):
        total, loss_GN, d_head, dx = carry
        j = jax.lax.dynamic_slice_in_dim(order, i * tile, tile, axis=1)
        live = i * tile + jnp.arange(tile) < count[:, None]
        # Spare places read a real row: zeros in its stead (a time, say) may have no finite gradient.
        read = jnp.where(live, j, order[:, :1])
        j = jnp.where(live, j, size + jnp.arange(tile))  # distinct and out of bounds: dropped
        xt = gather(x, read)
        yt = jax.tree.map(lambda a: gather(a, read), y)
        wt = jnp.where(live, gather(w, read), 0)

        def tile_loss(head, xt, yt, wt):
            loss = jnp.where(wt != 0, fn(head(xt), yt), 0)
            return jnp.sum(wt * loss), loss

        if gradients:

            def grad(xt, yt, wt):
                (value, loss), g = jax.value_and_grad(tile_loss, argnums=(0, 1), has_aux=True)(
                    head, xt, yt, wt
                )
                return value, loss, g

            value, loss, (gh, gx) = jax.vmap(grad)(xt, yt, wt)
            d_head = jax.tree.map(lambda a, g: a + g.astype(a.dtype), d_head, gh)
            dx = scatter(dx, j, gx.astype(dx.dtype))
        else:
            value, loss = jax.vmap(partial(tile_loss, head))(xt, yt, wt)
        return total + value, scatter(loss_GN, j, loss), d_head, dx

    out_dtype = jax.eval_shape(
        lambda h, a, b: fn(h(a[:1]), jax.tree.map(lambda v: v[:1], b)), head, features_ND, args
    ).dtype
    carry = (
        jnp.zeros(groups, out_dtype),
        jnp.zeros((groups, size), out_dtype),
        jax.tree.map(zeros_like_head, head) if gradients else (),
        jnp.zeros_like(x) if gradients else (),
    )
    trips = -(-jnp.max(count) // tile)
    total, loss, d_head, dx = jax.lax.fori_loop(0, trips, body, carry)
    if gradients:
        d_head = jax.tree.map(lambda a, p: jnp.sum(a, 0).astype(p.dtype), d_head, head)
        dx = dx.reshape(features_ND.shape)
    return jnp.sum(total), loss.reshape(-1), d_head, dx


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sweep(fn, tile, groups, head, features_ND, args, weight_N):
    total, loss, _, _ = _walk(fn, tile, groups, head, features_ND, args, weight_N, False)
    return total, loss


def _sweep_forward(fn, tile, groups, head, features_ND, args, weight_N):
    total, loss, d_head, dx = _walk(fn, tile, groups, head, features_ND, args, weight_N, True)
    return (total, loss), (d_head, dx)


def _sweep_backward(fn, tile, groups, residuals, cotangents):
    d_head, dx = residuals
    scale = lambda g: g * cotangents[0].astype(g.dtype)
    return jax.tree.map(scale, d_head), scale(dx), None, None


_sweep.defvjp(_sweep_forward, _sweep_backward)
