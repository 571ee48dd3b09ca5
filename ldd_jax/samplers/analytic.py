"""Tweedie tau-leaping of SEDD (arXiv 2310.16834, eq. 19), from the score."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@register("step", "analytic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Analytic(Step):
    """Staggered score times transposed kernel, each position on its own.

    For a network that predicts normalised x_theta it is the plug-in posterior, that is `ancestral`,
    by another computation; for a free score network the two differ.
    """

    def way(self, process: Process) -> Way:
        """By its own law with the text plugged in."""
        del process
        return Way(law=lambda process, pred, z, t, s: process.log_analytic(pred, z, t, s))

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        moves = net.process.scored(state.z) & state.free
        trunk = net.trunk(state, segment)
        length = state.z.shape[1]

        def move(pred, z, t, args):
            row_draw, s, moves = args
            law = net.process.log_analytic(pred, z, t, s)
            return row_draw.outcome(law, moves.astype(pred.dtype), z)

        args = (draw.rows(length), positions.of_rows(s, length), moves.reshape(-1))
        z = net.rows(move, trunk, state.z, state.clock, args, where=moves)
        z = jnp.where(moves, z, state.z)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
