"""Ancestral sampling: z_s ~ p_theta(z_s | z_t), one network call a step (MDLM, UDLM, LDDM)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.base import Net, SampleState, Step


@register("step", "ancestral")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral(Step):
    """Each free position independently from the process's posterior with x_theta plugged in.

    Which masked positions are revealed is drawn before the network is asked, so that only they pay
    for the vocabulary: about L / T rows a sequence instead of L, and exactly the same law.
    """

    def __call__(
        self,
        net: Net,
        state: SampleState,
        t_B: Array,
        s_B: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step; s None is the noise removal."""
        shape = state.z.shape
        wide = lambda a: jnp.repeat(a, shape[1])
        s_N = None if s_B is None else wide(s_B)
        row_draw = draw.rows(shape[1])
        chance = net.process.move(state.z.reshape(-1), wide(t_B), s_N)
        moves = row_draw.event(chance).reshape(shape) & state.free
        trunk = net.trunk(state, t_B, segment)

        def move(pred, z, t, args):
            row_draw, s = args
            return net.process.sample_posterior(row_draw, pred, z, t, s)

        z = net.rows(move, trunk, state.z, t_B, (row_draw, s_N), where=moves)
        return state._replace(
            z=jnp.where(moves, z, state.z), h=trunk.latent, calls=state.calls + self.calls
        )
