"""A window that slides over a row, block after block, in one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core import positions
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.rows import Rows
from ldd_jax.samplers.state import Clamp, SampleState


class Spans(NamedTuple):
    """Block k generates positions start[k] .. end[k] while the network sees a window from
    offset[k]; int32 [K] each.
    """

    start: np.ndarray
    end: np.ndarray
    offset: np.ndarray


def spans_to(ends: list[int], length: int, window: int) -> Spans:
    """Blocks that end at `ends`, the last one at the row's end, each at the end of its window.

    Args:
      ends: of every block, rising.
      length: of the row.
      window: positions that the network sees.
    """
    end = np.minimum(np.asarray(ends, np.int32), length)
    start = np.concatenate([[0], end[:-1]]).astype(np.int32)
    return Spans(start, end, np.clip(end - window, 0, length - window).astype(np.int32))


def slide(
    run: Callable[[Draw, tuple[Any, Any], Clamp, Any], tuple[SampleState, Any]],
    net: Net,
    draw: Draw,
    prior: tuple[Any, Any],
    clamp: Clamp | None,
    spans: Spans,
    seen: int,
    *,
    shift: bool,
) -> SampleState:
    """Sample the blocks of a row one after the other, all that is outside of one clamped.

    Args:
      run: (draw, (z, clock), clamp, h) of a window to its state, as of `loop.sample`.
      net: network with process and read-out.
      draw: block k draws from draw.at(step=k).
      prior: (z, clock) at t = 1, of the whole row.
      clamp: of the whole row; None = nothing is given.
      spans: the blocks.
      seen: positions of a window.
      shift: h moves with its positions, 0 at new ones; False: a block begins with h = 0.

    Returns:
      The state of the whole row; h is that of the last window.
    """
    batch, length = positions.shape(prior[0])
    rows, documents = Rows.of(prior[0], clamp), None if clamp is None else clamp.segment
    start, end, offset = (jnp.asarray(a) for a in spans)
    view: Callable = lambda tree, o: jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, o, seen, axis=1) if a.ndim > 1 else a, tree
    )
    place = jnp.arange(length)
    zero = lambda h: jax.tree.map(jnp.zeros_like, h)

    def block(k, carry):
        z, h, calls, lawless = carry
        o = offset[k]
        active = (place >= start[k]) & (place < end[k])
        fixed = rows.fixed | ~active
        segment = None if documents is None else view(documents, o)
        fixed = view(jnp.broadcast_to(fixed, (batch, length)), o)
        given = Clamp(view(z, o), fixed, segment, prompt=view(rows.prompt, o))
        moved = o - offset[jnp.maximum(k - 1, 0)]
        h = jax.tree.map(lambda a: _shift(a, moved), h) if shift else zero(h)
        state, _ = run(draw.at(step=k), (view(z, o), view(prior[1], o)), given, h)
        put = lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, o, axis=1)
        z = jax.tree.map(put, z, state.z)
        return z, state.h, calls + state.calls, lawless | state.lawless

    none = jnp.zeros(batch, jnp.int32)
    first = (rows.z, net.latent(batch, seen), none, none > 0)
    z, h, calls, lawless = jax.lax.fori_loop(0, len(spans.end), block, first)
    return rows.ended(net, z, h, calls, lawless)


def _shift(a: Array, by: Array) -> Array:
    """Move [B, W, ...] left by a traced number of positions, zeros from the right."""
    wide = jnp.concatenate([a, jnp.zeros_like(a)], axis=1)
    return jax.lax.dynamic_slice_in_dim(wide, by, a.shape[1], axis=1)
