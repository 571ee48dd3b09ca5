"""Masks of splash attention: objects that say which key a query sees, computed in the kernel."""

from __future__ import annotations

from typing import Any

from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from ldd_jax.core.types import Attend
from ldd_jax.denoisers.masks import by_size


class Blocked(masks._ComputableMask):
    """Blocks of a known size, after each other or doubled; equal to another of the same numbers."""

    def __init__(self, kind: str, size: int, length: int):
        self.of = (kind, size, length)
        super().__init__((length, length), by_size(kind, size, length))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocked) and self.of == other.of

    def __hash__(self) -> int:
        return hash(self.of)


def mask_of(attend: Attend, queries: int, length: int) -> Any:
    """The mask object of a row.

    Args:
      attend: who sees whom.
      queries: whose mask it is, the first; all of them where it is not full.
      length: of the row.
    """
    if attend.size:
        return Blocked(attend.kind, attend.size, length)
    shape = masks.CausalMask if attend.kind == "causal" else masks.FullMask
    return shape((queries, length))
