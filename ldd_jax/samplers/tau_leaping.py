"""Tau-leaping and Euler: the intensities of time t held fixed until s, one call a step."""

from __future__ import annotations

import dataclasses

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.leaps import check_leap, check_scales, leap_all, leaping, scaled
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@register("step", "tau_leaping")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TauLeaping(Step):
    """Leap of length t - s at mu(z, t) (arXiv 2205.14987); KL of order 2 in the number of steps.

    Attributes:
      leap: the law of a jump in that time, see `samplers.leaps`.
      scales: factors of the rate by step, the last for all that follow; none = 1 always.
    """

    leap: str = "first_jump"
    scales: tuple[float, ...] = ()

    def __post_init__(self):
        check_leap(self.leap)
        check_scales(self.scales)

    def way(self, process: Process) -> Way:
        """At times that do not look at the network, where that is so."""
        return leaping("tau_leaping", process)

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
        z, trunk = leap_all(net, state, duration, self.leap, draw, segment)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
