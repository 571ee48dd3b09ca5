"""What objectives that learn from the batch's own examples share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array, Batch, Denoiser


def with_z(loss_N: Array, logits_NV: Array, strength: float) -> Array:
    """Loss + strength (log sum_v e^logit_v)^2 by row: keeps logits near a normalised law.

    PaLM (arXiv 2204.02311, section 5) has strength 1e-4.

    Args:
      loss_N: nats.
      logits_NV: what the head gives.
      strength: 0 = the loss as it is.
    """
    if not strength:
        return loss_N
    return loss_N + strength * jnp.square(jax.nn.logsumexp(logits_NV, axis=-1))


class OfData:
    """Nothing is drawn from the network and nothing is kept between updates.

    by_block: whether it is for networks that see their row block by block (`Denoiser.block`), and
    for no others. needs_target: whether it learns from a target instead. joint: whether it scores
    all parts of a process that is made of several.
    """

    by_block = False
    needs_target = False
    joint = False

    def aux(self, batch: int, length: int) -> Any:
        """Nothing."""
        del batch, length
        return ()

    def drawn(self, denoiser: Denoiser, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """The batch as it is."""
        del denoiser, key
        return aux, batch
