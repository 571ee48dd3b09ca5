"""Euler's rule of SEDD (arXiv 2310.16834): P(y) = 1[y = z] + h mu(z, t)[y], clipped."""

from __future__ import annotations

import dataclasses

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.leaps import check_scales, leap_all, leaping, scaled
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@register("step", "euler")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler(Step):
    """Tau-leaping with the linear leap; masked and log-linear, it equals ancestral.

    Attributes:
      scales: factors of the rate by step (LSD, arXiv 2509.19962), the last for all that follow;
        none = 1 always.
    """

    scales: tuple[float, ...] = ()

    def __post_init__(self):
        check_scales(self.scales)

    def way(self, process: Process) -> Way:
        """At times that do not look at the network, where that is so."""
        return leaping("euler", process)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        duration = scaled(state.clock - s, self.scales, net.number)
        z, trunk = leap_all(net, state, duration, "linear", draw, segment)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
