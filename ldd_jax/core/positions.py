"""States and clocks by position: trees whose leaves begin with [B, L], and clocks by row, [B].

A state z is tokens [B, L], points [B, L, C], or a tree of both. A clock is one number a row [B], a
number for every position [B, L], or a tree of those.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array

TEXT, SIGNAL = "text", "signal"  # branches of a state of tokens with points beside them


def shape(z: Any) -> tuple[int, int]:
    """(B, L) of a state."""
    batch, length = jax.tree.leaves(z)[0].shape[:2]
    return batch, length


def flat(tree: Any) -> Any:
    """Leaves [B, L, ...] as rows [B * L, ...]."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)


def of_rows(clock: Any, length: int) -> Any:
    """A clock, [B] or [B, L], by row of the flattened batch: [B * L]."""
    return jax.tree.map(
        lambda a: jnp.repeat(a, length) if a.ndim == 1 else a.reshape(-1, *a.shape[2:]), clock
    )


def column(clock: Array) -> Array:
    """A clock, [B] or [B, L], that broadcasts against [B, L]."""
    return clock[:, None] if clock.ndim == 1 else clock


def where(chosen_BL: Array, new: Any, old: Any) -> Any:
    """`new` at the chosen positions, `old` elsewhere; leaves [B, L, ...].

    Args:
      chosen_BL: True where `new` is taken.
      new: a state, leaves [B, L, ...].
      old: another of the same structure.
    """
    pick = lambda a, b: jnp.where(chosen_BL.reshape(*chosen_BL.shape, *(1,) * (b.ndim - 2)), a, b)
    return jax.tree.map(pick, new, old)
