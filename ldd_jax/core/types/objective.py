"""Losses."""

from __future__ import annotations

from typing import Any, Protocol

from ldd_jax.core.types.network import Denoiser
from ldd_jax.core.types.values import Array, Batch, Loss


class Objective(Protocol):
    """What an update minimises."""

    def aux(self, batch: int, length: int) -> Any:
        """Shapes and dtypes of what is kept from update to update, leaves [batch, ...]; or ()."""
        ...

    def drawn(self, denoiser: Denoiser, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """What to keep now, and the batch to be scored; no gradient is taken through it.

        Sees the whole global batch: microbatches get their share of the one that it returns.

        Args:
          denoiser: network with the parameters of this update.
          batch: global batch, as the pipeline gives it.
          aux: what the update before kept, in the structure of `aux`.
          key: PRNG key of this update, for what is drawn here.

        Returns:
          What to keep, and the batch, with the same leading axis B.
        """
        ...

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """The loss of a (micro)batch.

        Args:
          denoiser: network with the parameters that the gradient is taken in.
          batch: of `drawn`, or a microbatch of it; `norm` and `total` are those of the global
            batch.
          key: PRNG key of this update; examples differ by `batch.index`.

        Returns:
          A total that adds up over microbatches and shards, and metrics that do too.
        """
        ...
