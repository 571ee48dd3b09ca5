"""Rows that are made block after block: what is given in them, and what they are in the end."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.types import Array
from ldd_jax.samplers.loop import check_lawful
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import Clamp, SampleState


class Rows(NamedTuple):
    """A batch of them: z, leaves [B, L, ...], with what is given in its place.

    fixed: [B, L], where something is given. prompt: [B, L], what of it is the condition (`Clamp`).
    """

    z: Any
    fixed: Array
    prompt: Array

    @classmethod
    def of(cls, z: Any, clamp: Clamp | None) -> Rows:
        """Before the first block; `clamp` None = nothing is given."""
        if clamp is None:
            clamp = Clamp(z, jnp.zeros(positions.shape(z), bool))
        prompt = clamp.fixed if clamp.prompt is None else clamp.prompt
        return cls(positions.where(clamp.fixed, clamp.tokens, z), clamp.fixed, prompt)

    def ended(self, net: Net, z: Any, h: Any, calls: Array, lawless: Array) -> SampleState:
        """The state at time 0.

        Args:
          net: with the process.
          z: what was made, like the rows' own.
          h: the latent that is left; None = none is.
          calls: of the network, [B].
          lawless: rows that were drawn from no law, [B]; see `check_lawful`.
        """
        check_lawful(lawless)
        batch, length = positions.shape(z)
        return SampleState(
            z=z,
            clock=net.process.clock(jnp.zeros(batch), length),
            h=h,
            free=~self.fixed,
            calls=calls,
            prompt=self.prompt,
            lawless=lawless,
        )
