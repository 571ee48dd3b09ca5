"""Ancestral sampling: z_s ~ p_theta(z_s | z_t), one network call a step (MDLM, UDLM, LDDM)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Trunk
from ldd_jax.samplers.base import Net, SampleState, Step
from ldd_jax.samplers.leaps import wide


def reveal(
    net: Net, state: SampleState, features: Array, t_B: Array, s_B: Array | None, draw: Draw
) -> Array:
    """z_s [B, L] from the posterior, given the features of the network call.

    Which positions move is drawn without the prediction where the process allows, so that only they
    pay for the vocabulary: about L / T masked rows a sequence instead of L, the same law exactly.
    """
    shape = state.z.shape
    s_N = None if s_B is None else wide(s_B, shape[1])
    row_draw = draw.rows(shape[1])
    chance = net.process.move_probability(state.z.reshape(-1), wide(t_B, shape[1]), s_N)
    moves = row_draw.event(chance).reshape(shape) & state.free

    def move(pred, z, t, args):
        row_draw, s = args
        return net.process.sample_posterior(row_draw, pred, z, t, s)

    trunk = Trunk(features=features, latent=None)
    z = net.rows(move, trunk, state.z, t_B, (row_draw, s_N), where=moves)
    return jnp.where(moves, z, state.z)


@register("step", "ancestral")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral(Step):
    """Each free position independently from the process's posterior with x_theta plugged in."""

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
        trunk = net.trunk(state, t_B, segment)
        z = reveal(net, state, trunk.features, t_B, s_B, draw)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
