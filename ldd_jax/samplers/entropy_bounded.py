"""Entropy-bounded unmasking (arXiv 2505.24857): as many positions as their entropies allow."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.confidence import OwnClock
from ldd_jax.samplers.orders import rank


def prefix(cost: Array, entropy: Array, wanted: Array, place: Array, gamma: float) -> Array:
    """Longest prefix U of the order with sum_U H - max_U H <= gamma, at least one; bool [B, L].

    The excess is monotone along any order, and bounds KL(p(x_U) || product of its marginals).

    Args:
      cost: [B, L], only its shape is read.
      entropy: of each position's prediction, nats [B, L].
      wanted: [B, L], True where a position may be revealed.
      place: ranks [B, L], of `orders.rank`.
      gamma: bound on the excess, nats.
    """
    order = jnp.argsort(place, axis=1)
    sorted_entropy = jnp.take_along_axis(jnp.where(wanted, entropy, 0), order, 1)
    excess = jnp.cumsum(sorted_entropy, axis=1) - jax.lax.cummax(sorted_entropy, axis=1)
    count = jnp.sum(wanted, axis=1)
    fits = (excess <= gamma) & (jnp.arange(cost.shape[1]) < count[:, None])
    k = jnp.clip(jnp.sum(fits, axis=1), 1, jnp.maximum(count, 1))
    return wanted & (place < k[:, None])


@register("step", "entropy_bounded")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyBounded(OwnClock):
    """Reveal, in `order`, the longest prefix whose joint dependence error is at most gamma nats.

    gamma = 0: one position a call, and those that are certain for nothing. Each row has its own
    number of positions and of calls.
    """

    order: str = "entropy"
    gamma: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.gamma < 0:
            raise ValueError(f"gamma is {self.gamma}; it must be 0 or more (nats)")

    def _chosen(self, found, wanted: Array, draw: Draw) -> Array:
        place = rank(found.cost, wanted, draw, order=self.order)
        return prefix(found.cost, found.entropy, wanted, place, self.gamma)
