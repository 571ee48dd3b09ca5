"""What objectives that learn from the batch's own examples share."""

from __future__ import annotations

from typing import Any

from ldd_jax.core.types import Array, Batch, Denoiser


class OfData:
    """Nothing is drawn from the network and nothing is kept between updates.

    needs_target: whether it learns from a target instead. joint: whether it scores all parts of a
    process that is made of several.
    """

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
