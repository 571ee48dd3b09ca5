"""Who sees whom: `Attend` as an array of pairs, or as a function of two places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.types import Array, Attend


def segment_mask(segment_BL: Array) -> Array:
    """[B, 1, L, L] True where query and key are of one document; segment 0 is padding.

    Padding attends to padding, so that no row is empty; nothing else attends to it.
    """
    return segment_BL[:, None, :, None] == segment_BL[:, None, None, :]


def doubled(q_unit: Any, k_unit: Any, q_clean: Any, k_clean: Any) -> Any:
    """Who sees whom in a row of noise with its clean copy (BD3-LM, arXiv 2503.09573).

    Args:
      q_unit: block of the query.
      k_unit: block of the key.
      q_clean: whether the query stands in the clean copy.
      k_clean: whether the key does.
    """
    before = k_clean & (k_unit < q_unit + q_clean)  # a clean query sees its own block too
    return before | (~q_clean & ~k_clean & (k_unit == q_unit))


def by_size(kind: str, size: int, length: int) -> Callable[[Any, Any], Any]:
    """(place of the query, place of the key) -> whether it is seen, of blocks of a known size.

    For NumPy, for JAX and inside a kernel, so that no array of pairs need exist.

    Args:
      kind: "block" or "doubled".
      size: places of a block.
      length: of the row, both halves of a doubled one.
    """
    if kind == "block":
        return lambda q, k: q // size >= k // size
    half = length // 2
    unit = lambda place, clean: (place - half * clean) // size

    def see(q: Any, k: Any) -> Any:
        q_clean, k_clean = q >= half, k >= half
        return doubled(unit(q, q_clean), unit(k, k_clean), q_clean, k_clean)

    return see


def seen(length: int, attend: Attend) -> Array | None:
    """Which key a query sees, [B or 1, 1, L, L]; None = all of them."""
    if attend.kind == "causal":
        return jnp.tri(length, dtype=bool)[None, None]
    if attend.size:
        place = jnp.arange(length)
        return by_size(attend.kind, attend.size, length)(place[:, None], place)[None, None]
    if attend.kind == "doubled" and attend.unit is not None:
        unit = jnp.concatenate([attend.unit, attend.unit], axis=1)
        clean = jnp.arange(length) >= length // 2
        return doubled(unit[:, None, :, None], unit[:, None, None, :], clean[:, None], clean)
    if attend.unit is not None:
        return attend.unit[:, None, :, None] >= attend.unit[:, None, None, :]
    if attend.mask is not None:
        mask = attend.mask
        return mask[None, None] if mask.ndim == 2 else mask[:, None]
    return None


def allowed(length: int, segment_BL: Array | None, attend: Attend) -> Array | None:
    """Which key a query sees, within its own document: [B or 1, 1, L, L]; None = all of them.

    Args:
      length: L.
      segment_BL: number of each position's document, 0 = padding; None = one document.
      attend: who sees whom within it.
    """
    mask, own = seen(length, attend), None if segment_BL is None else segment_mask(segment_BL)
    return own if mask is None else mask if own is None else mask & own
