"""Blocks of a row that the network sees whole, with keys and values kept of what is not at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from ldd_jax.core.checks import UserError
from ldd_jax.samplers.blocks import Blocks, Whole
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.sliding import Spans
from ldd_jax.samplers.state import Clamp, SampleState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keeping(Blocks):
    """What they share: h = 0 at the start of a block, one document a row, one call a step.

    unshifted: why no latent goes with its positions.
    """

    latent: str = "reset"
    unshifted: ClassVar[str]

    def __post_init__(self):
        super().__post_init__()
        if self.latent != "reset":
            raise ValueError(f"{self.unshifted}; latent is reset")

    def spans(self, length: int, window: int) -> Spans:
        """The row: what its blocks are is no matter of the window."""
        return Whole().spans(length, window)

    def check_run(
        self,
        net: Net,
        *,
        latent: Latent,
        clamp: Clamp | None,
        record: Callable[[SampleState], Any] | None,
    ) -> None:
        """Refuse what these blocks cannot be run with; all are those of `sample_blocks`.

        Args:
          net: network with process and read-out.
          latent: whether h is carried.
          clamp: packed documents are refused.
          record: refused.

        Raises:
          ValueError: in one line; a UserError for guidance.
        """
        carried = bool(jax.tree.leaves(net.latent(1, 1))) and not latent.off
        self.check(net.process, net.denoiser.block)
        self.check_network(latent=carried, timed=net.denoiser.timed)
        if record is not None:
            raise ValueError("a record is of one block, and a row has several")
        if clamp is not None and clamp.segment is not None:
            raise ValueError("a cache holds one document a row; segment does not apply")
        if net.passes != 1:
            raise UserError("guidance asks twice, and there is one cache; use guidance 1")
