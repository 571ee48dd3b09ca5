"""A random walk along geodesics: the sampler of processes whose states are points (RDLM)."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@register("step", "geodesic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Geodesic(Step):
    """X <- exp_X(mean drift of the interval + its noise), one call a step (arXiv 2502.11564).

    Its law tends to the process's with an error of first order in the steps: where it stands after
    few is between the vertices, and what comes out of it is the tail's doing. `ancestral` draws a
    token first and steps towards it.
    """

    states = "points"
    processes = "points (sphere, gaussian)"
    no_way = "a walk of points has no probability of its own for a text (docs/rdlm.md)"

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Any,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step to the clock s."""
        trunk = net.trunk(state, segment)
        process: Any = net.process
        length = positions.shape(state.z)[1]

        def move(pred, z, t, args):
            row_draw, s = args
            return process.diffuse(row_draw, pred, z, t, s)

        args = draw.rows(length), positions.of_rows(s, length)
        z = net.rows(move, trunk, state.z, state.clock, args, where=state.free)
        z = positions.where(state.free, z, state.z)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
