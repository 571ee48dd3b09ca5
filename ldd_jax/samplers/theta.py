"""Two-stage rules of second order: theta-RK-2 and theta-trapezoidal (arXiv 2502.00234).

Stage 1, both: z* = leap(z, mu0, theta h) with mu0 = mu(z, t); then mu* = mu(z*, t - theta h).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.leaps import check_leap, leap_all, outcome
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TwoStages(Step):
    """Stage 1 leaps to z*; stage 2 leaps from `_origin` with [a mu* + b mu0]_+.

    Stage 2 gets the latent of stage 1, and its own is carried on; no training pass does that.
    """

    calls = 2
    latent = "untrained"
    no_way = "the network has a say in whether its second stage moves a position"
    theta: float = 0.5
    leap: str = "first_jump"

    def __post_init__(self):
        check_leap(self.leap)
        self._check_theta()

    def _check_theta(self) -> None:
        if not 0 < self.theta < 1:
            raise ValueError(f"theta is {self.theta}; it must lie in (0, 1)")

    def _weights(self) -> tuple[float, float, float]:
        """(a, b, share of the step that stage 2 covers)."""
        raise TypeError

    def _origin(self, z: Array, middle: Array) -> Array:
        raise TypeError

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step of two calls."""
        process, length = net.process, state.z.shape[1]
        duration = state.clock - s
        first = (self.theta * duration, "first_jump", draw.at(site=0), segment)
        middle, trunk = leap_all(net, state, *first)
        later = state.clock - self.theta * duration
        second = net.trunk(state._replace(z=middle, clock=later, h=trunk.latent), segment)
        a, b, share = self._weights()
        origin = self._origin(state.z, middle)
        moves = process.scored(origin) & state.free
        combine = _combination(process.rate, a, b)

        def move(now, then, args):
            row_draw, z, duration, moves = args
            rate = combine(now, then)
            rate = jnp.where(jnp.arange(rate.shape[-1]) == z[:, None], 0, rate)
            law = outcome(self.leap, duration[:, None] * rate, z, jnp.zeros(z.shape, bool))
            return row_draw.outcome(law, moves.astype(rate.dtype), z)

        args = (
            draw.at(site=1).rows(length),
            origin.reshape(-1),
            positions.of_rows(share * duration, length),
            moves.reshape(-1),
        )
        calls = (trunk, state.z, state.clock), (second, middle, later)
        z = jnp.where(moves, net.rows_of_two(move, *calls, args, where=moves), origin)
        h = net.taken_back(middle, z, second.latent)  # the rule may start again from masks
        return state._replace(z=z, h=h, calls=state.calls + self.calls)


def _combination(rate: Callable, a: float, b: float) -> Callable:
    """[a mu* + b mu0]_+, intensities by target token."""
    return lambda now, then: jnp.maximum(a * rate(*then) + b * rate(*now), 0)


@register("step", "theta_trapezoidal")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ThetaTrapezoidal(_TwoStages):
    """z' = leap(z*, [a1 mu* - a2 mu0]_+, (1 - theta) h).

    a1 = 1 / (2 theta (1 - theta)), a2 = a1 - 1. KL of order 4 in the number of steps with the
    first-jump leap and as long as a1 mu* >= a2 mu0; linear and rejection leaps fall back to 2.
    """

    def _weights(self) -> tuple[float, float, float]:
        a = 1 / (2 * self.theta * (1 - self.theta))
        return a, 1 - a, 1 - self.theta

    def _origin(self, z: Array, middle: Array) -> Array:
        return middle


@register("step", "theta_rk2")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ThetaRK2(_TwoStages):
    """z' = leap(z, [(1 - 1/(2 theta)) mu0 + 1/(2 theta) mu*]_+, h), starting again from z.

    KL of order 4 with the linear leap in stage 2 (the default); first_jump falls back to 2.
    """

    leap: str = "linear"

    def _weights(self) -> tuple[float, float, float]:
        return 1 / (2 * self.theta), 1 - 1 / (2 * self.theta), 1.0

    def _origin(self, z: Array, middle: Array) -> Array:
        return z
