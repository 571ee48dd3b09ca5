"""Predictor-corrector: after each step, moves that leave the marginal at the new time unchanged."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.leaps import check_leap, leap_all
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corrector:
    """What correctors share; see `Step` for `calls` and `latent`."""

    calls: ClassVar[int] = 1
    latent: ClassVar[str] = "native"

    def __call__(
        self, net: Net, state: SampleState, length: Any, draw: Draw, segment: Array | None
    ) -> SampleState:
        """One correction at the state's clock, after a step of that length; counts its calls.

        Args:
          net: network with process and read-out.
          state: after the step, with its clock.
          length: of the step, in time.
          draw: chance of this correction.
          segment: documents [B, L], 0 = padding; None = one.
        """
        raise TypeError(f"{type(self).__name__} defines no correction")


@register("corrector", "rate")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RateCorrector(Corrector):
    """A leap of length size * (t - s) at time s with reverse plus forward intensities.

    The generator R + Q has p_s as its stationary law, R being the reversal of Q at s
    (arXiv 2205.14987, section 4.4); masked positions are revealed and revealed ones masked again.
    Its intensities are of order weight(s) = -alpha' / (1 - alpha), 1 / s for a log-linear schedule,
    so that the leap is at most `share` / weight(s), in proportion to s: else it changes a part
    (t - s) of a text of which s is noise. Masked diffusion balances reveals and masks exactly
    (`Process.both_ways`), so that the law of one position stays whatever the length; elsewhere the
    error of a leap is of order share^2.
    """

    latent = "untrained"
    size: float = 1.0
    share: float = 0.1
    leap: str = "first_jump"

    def __post_init__(self):
        check_leap(self.leap)
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; it must lie in (0, 1]")
        if not self.size > 0:
            raise ValueError(f"size is {self.size}; it must be above 0")

    def __call__(self, net, state, length, draw, segment) -> SampleState:
        """One correction at the state's clock, after a step of the given length."""
        tiny = jnp.finfo(state.clock.dtype).tiny  # the weight at 0 is infinite
        s = jnp.maximum(state.clock, tiny)
        longest = self.share / net.process.schedule.weight(s)
        how = (jnp.minimum(self.size * length, longest), self.leap, draw, segment)
        z, trunk = leap_all(net, state._replace(clock=s), *how, noise=True)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)


@register("corrector", "gibbs")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GibbsCorrector(Corrector):
    """Draw `positions` settled positions anew from p(z^i | the others), chosen at random.

    Masked: the chosen ones are masked for the call, as a network with carry-over predicts nothing
    where it sees the token. Uniform: x_theta is the leave-one-out posterior, so they are shown.
    Exactly stationary for one position; more at once are drawn as if independent. A carried latent
    has seen the tokens to be forgotten, so it is refused.
    """

    latent = "refused"
    positions: int = 1

    def __post_init__(self):
        if self.positions < 1:
            raise ValueError(f"positions is {self.positions}; it must be at least 1")

    def __call__(self, net, state, length, draw, segment) -> SampleState:
        """One correction."""
        del length
        process, shape = net.process, state.z.shape
        settled = process.revealed(state.z) & state.free
        flat = jnp.zeros(shape, jnp.result_type(float))
        place = draw.at(site=1).ranking(jnp.where(settled, flat, -jnp.inf))
        chosen = settled & (place < self.positions)
        hidden = process.mask_at(state.z, chosen)
        trunk = net.trunk(state._replace(z=hidden), segment)

        def again(pred, z, t, args):
            row_draw, chosen, old = args
            law = process.log_conditional(pred, z, t)
            return row_draw.outcome(law, chosen.astype(pred.dtype), old)

        args = (draw.at(site=0).rows(shape[1]), chosen.reshape(-1), state.z.reshape(-1))
        z = net.rows(again, trunk, hidden, state.clock, args, where=chosen)
        z = jnp.where(chosen, z, state.z)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)


@register("step", "predictor_corrector")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictorCorrector(Step):
    """`predictor` from t to s, then `corrections` of `corrector` at s wherever s <= `below`."""

    no_way = "corrections draw tokens anew, and a text does not say what stood there before"
    predictor: Any = component("step", Ancestral)
    corrector: Any = component("corrector", RateCorrector)
    corrections: int = 1
    below: float = 1.0

    def __post_init__(self):
        if self.corrections < 1:
            raise ValueError(f"corrections is {self.corrections}; it must be at least 1")
        if not 0 < self.below <= 1:
            raise ValueError(f"below is {self.below}; it must lie in (0, 1]")
        if self.predictor.clock != "grid":
            raise ValueError("the predictor must be a rule on a time grid")

    @property
    def calls(self) -> int:  # type: ignore[override]
        """Of a step with its corrections."""
        return self.predictor.calls + self.corrections * self.corrector.calls

    @property
    def latent(self) -> str:  # type: ignore[override]
        """The stricter of the two."""
        kinds = (self.predictor.latent, self.corrector.latent)
        return max(kinds, key=["native", "untrained", "refused"].index)

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """What either part refuses."""
        super().check(process, latent=latent, timed=timed)
        self.predictor.check(process, latent=latent, timed=timed)

    def init(self, net: Net, state: SampleState) -> Any:
        """The predictor's memory."""
        return self.predictor.init(net, state)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step and its corrections."""

        def part(old, new):
            return new._replace(h=net.taken_back(old.z, new.z, new.h))

        length = state.clock - s
        state = part(state, self.predictor(net, state, s, draw.at(site=0), segment))
        state = state._replace(clock=s)

        def correct(k, state):
            at = draw.at(site=1).at(step=k)
            return part(state, self.corrector(net, state, length, at, segment))

        def all_of_them(state):
            if self.corrections == 1:
                return correct(0, state)
            return jax.lax.fori_loop(0, self.corrections, correct, state)

        if self.below == 1:
            return all_of_them(state)
        return jax.lax.cond(jnp.all(s <= self.below), all_of_them, lambda s: s, state)
