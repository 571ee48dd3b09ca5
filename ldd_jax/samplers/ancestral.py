"""Ancestral sampling: z_s ~ p_theta(z_s | z_t), one network call a step (MDLM, UDLM, LDDM)."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process, Trunk
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


def reveal(net: Net, state: SampleState, features: Array, s: Any, draw: Draw) -> Any:
    """z_s from the posterior, given the features of the network call.

    Which positions move is drawn without the prediction where the process allows, so that only they
    pay for the vocabulary: about L / T masked rows a sequence instead of L, the same law exactly.

    Args:
      net: process and read-out.
      state: before the step, as the network saw it.
      features: of that call's trunk, [B, L, D].
      s: clock to move to; None = the data.
      draw: chance of this step.

    Returns:
      The new z; positions that are not free keep theirs.
    """
    shape = positions.shape(state.z)
    t_N, s_N = (positions.of_rows(clock, shape[1]) for clock in (state.clock, s))
    row_draw = draw.rows(shape[1])
    chance = net.process.move_probability(positions.flat(state.z), t_N, s_N)
    moves = row_draw.event(chance).reshape(shape) & state.free

    def move(pred, z, t, args):
        row_draw, s = args
        return net.process.sample_posterior(row_draw, pred, z, t, s)

    trunk = Trunk(features=features, latent=None)
    z = net.rows(move, trunk, state.z, state.clock, (row_draw, s_N), where=moves)
    return positions.where(moves, z, state.z)


def _posterior(process: Process, pred: Array, z: Array, t: Array, s: Any) -> Array:
    return process.log_posterior(pred, z, t, s)


POSTERIOR = Way(law=_posterior)


@register("step", "ancestral")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral(Step):
    """Each free position independently from the process's posterior with x_theta plugged in."""

    trees = True
    states = "any"

    def way(self, process: Process) -> Way:
        """By the posterior that knows the text."""
        if process.points:
            raise ValueError(
                "sampler ancestral: its own likelihood is not known, as points have no "
                "probabilities (evaluate without --bound=carried)"
            )
        return POSTERIOR

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Any,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step; s None is the noise removal."""
        trunk = net.trunk(state, segment)
        z = reveal(net, state, trunk.features, s, draw)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
