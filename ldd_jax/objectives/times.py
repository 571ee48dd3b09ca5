"""Times of a batch: uniform numbers placed on [0, 1], and what an example weighs there."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.kl import kl
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Process


class Continuous:
    """Times in [0, 1]: the integrand is the process's own.

    falls: as their uniform number rises, from noise to data. uniform: all times are as dense and
    weigh the same. counts_steps: they are those of a number of steps, which weights count.
    """

    chain = ""
    falls = False
    uniform = counts_steps = False
    events = False
    of_tokens = False

    def unclipped(self) -> Any:
        """Those of evaluation: uniform on all of (0, 1]."""
        return UniformTimes(eps=0.0)

    def integrand(
        self, process: Process, logits_NV: Array, z0_N: Array, z_N: Array, t_N: Array
    ) -> Array:
        """Nats of each row at its time.

        Args:
          process: gives the bound.
          logits_NV: what the head gives.
          z0_N: clean tokens.
          z_N: corrupted tokens.
          t_N: clock of each row.
        """
        return process.bound(logits_NV, z0_N, z_N, t_N)


@register("times", "uniform")
@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformTimes(Continuous):
    """t = eps + (1 - eps) (1 - u), u in [0, 1): uniform on (eps, 1].

    The published recipes clip at eps = 1e-3, a relative bias of that order; 0 has none.
    """

    eps: float = 1e-3
    falls = uniform = True

    def __post_init__(self):
        if not 0 <= self.eps < 1:
            raise ValueError(f"eps is {self.eps}; it must lie in [0, 1)")

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and the factor that the integrand is multiplied by (1)."""
        del schedule
        return self.eps + (1 - self.eps) * (1 - u_B), jnp.ones_like(u_B)


@register("times", "importance")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceTimes(Continuous):
    """log(1 - alpha_t) uniform between its values at `eps` and 1, so that every masked row weighs
    the same: the factor is (log noise(1) - log noise(eps)) / weight(t) (MDLM, appendix).
    """

    eps: float = 1e-3

    def __post_init__(self):
        if not 0 < self.eps < 1:
            raise ValueError(f"eps is {self.eps}; it must lie in (0, 1)")

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and dt/du."""
        low, high = (jnp.log(schedule.noise(jnp.asarray(t, u_B.dtype))) for t in (self.eps, 1.0))
        t = schedule.inverse(jnp.exp(low + u_B * (high - low)))
        return t, (high - low) / schedule.weight(t)


@register("times", "clipped")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedTimes(Continuous):
    """Share of masked positions uniform on (low, high], each of which weighs 1 / share.

    A clipped noise schedule (BD3-LM, arXiv 2503.09573, section 5): short blocks with nearly no or
    nearly all masks give gradients of large variance. .45 to .95 for blocks of 4, .3 to .8 for 16
    there. Not a bound unless it is 0 to 1; evaluation takes all times. The share is that of the
    noise at t = 1; high = low = 1 masks everything, as blocks of 1 want.
    """

    low: float = 0.3
    high: float = 0.8

    def __post_init__(self):
        if not 0 <= self.low <= self.high <= 1 or self.high == 0:
            raise ValueError(
                f"low is {self.low} and high {self.high}; 0 <= low <= high <= 1 is needed"
            )

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times, and 1 / share in the place of the schedule's weight."""
        share = self.high - (self.high - self.low) * u_B
        most = schedule.noise(jnp.ones((), u_B.dtype))
        t = jnp.minimum(schedule.inverse(share * most), 1)
        return t, 1 / (share * schedule.weight(t))


@register("times", "grid")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GridTimes:
    """t = k / T, k uniform in 1 .. T: the bound of a chain of T steps (D3PM, arXiv 2107.03006).

    The integrand is T KL(q(z_s | z_t, x) || p(z_s | z_t)), s = t - 1/T, both from the process's own
    posterior. At s = 0 it is -log p(x | z_t), so that there is no further reconstruction term for a
    schedule with alpha(0) = 1 (for others see `WithReconstruction`). It bounds the ancestral
    sampler on T equal steps down to t = 0,
    and tends to the continuous bound, with an error of order 1 / T.
    """

    steps: int = 1000
    events = uniform = counts_steps = False
    of_tokens = falls = True

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")

    @property
    def chain(self) -> str:
        """Of which sampler it is the bound, beside its passes."""
        return f" on {self.steps} equal steps"

    def unclipped(self) -> GridTimes:
        """The same: the grid is what is bounded."""
        return self

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and the factor of the integrand (1)."""
        del schedule
        k = jnp.clip(jnp.ceil((1 - u_B) * self.steps), 1, self.steps)
        return k / self.steps, jnp.ones_like(u_B)

    def integrand(
        self, process: Process, logits_NV: Array, z0_N: Array, z_N: Array, t_N: Array
    ) -> Array:
        """T KL of each row."""
        s_N = jnp.maximum(t_N - 1 / self.steps, 0)
        law = lambda pred: process.log_posterior(pred, z_N, t_N, s_N)
        true = law(process.one_hot_prediction(z0_N, z_N, t_N))
        return self.steps * kl(true, law(process.read(logits_NV, z_N, t_N)))


@register("times", "events")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EventTimes(UniformTimes):
    """Uniform on (eps, 1] for a process of counted events: the factor is sigma'(t) / sigma(t).

    What the events of a position cost together, S KL, has no weight of time of its own: with a
    Poisson mean m, d/dm E[F(S)] = E[S (F(S) - F(S - 1))] / m, and m'/m is sigma'/sigma whatever the
    kernel (SCUD, arXiv 2506.08316).
    """

    events = True
    uniform = False

    def unclipped(self) -> EventTimes:
        """Those of evaluation."""
        return EventTimes(eps=0.0)

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and their factor."""
        t, _ = super().__call__(u_B, schedule)
        return t, schedule.d_sigma(t) / schedule.sigma(t)


@dataclasses.dataclass(frozen=True)
class WithReconstruction:
    """Other times, and for a `share` of the examples t = 0 with the term -log p(x | z_0).

    That term is missing from the integral where alpha(0) < 1: the sampler's noise removal still has
    tokens to reveal or to correct there.
    """

    inner: Any
    share: float = 1 / 16
    uniform = counts_steps = False

    @property
    def chain(self) -> str:
        """That of the others."""
        return self.inner.chain

    @property
    def events(self) -> bool:
        """Those of the others."""
        return self.inner.events

    @property
    def of_tokens(self) -> bool:
        """As the others."""
        return self.inner.of_tokens

    def unclipped(self) -> WithReconstruction:
        """The same."""
        return self

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and factors, the inverse share of either kind among them."""
        last, rest = u_B < self.share, 1 - self.share
        t, factor = self.inner(jnp.maximum(u_B - self.share, 0) / rest, schedule)
        return jnp.where(last, 0, t), jnp.where(last, 1 / self.share, factor / rest)

    def integrand(
        self, process: Process, logits_NV: Array, z0_N: Array, z_N: Array, t_N: Array
    ) -> Array:
        """The others' rows, and the noise removal's where t = 0."""
        path = self.inner.integrand(process, logits_NV, z0_N, z_N, t_N)
        pred = process.read(logits_NV, z_N, t_N)
        return jnp.where(t_N == 0, -process.log_recovery(pred, z0_N, z_N, t_N), path)


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """In the place of an objective's times: -log p(x | z) of a row, unweighted."""

    events = falls = uniform = counts_steps = False
    of_tokens = False

    def integrand(
        self, process: Process, logits_NV: Array, z0_N: Array, z_N: Array, t_N: Array
    ) -> Array:
        """Nats of each row."""
        return -process.log_recovery(process.read(logits_NV, z_N, t_N), z0_N, z_N, t_N)


@register("times", "cross_entropy")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropyTimes(CrossEntropy):
    """-log p(x | z) as the loss; a `share` of the times uniform on [begin, end], others on (0, 1].

    All weigh 1: where the times are dense the network learns more. RDLM (arXiv 2502.11564), whose
    time is 1 - t: .3 to .6 there for texts of characters, .3 to .75 for words.
    """

    begin: float = 0.3
    end: float = 0.8
    share: float = 0.7
    chain = ""
    falls = False

    def __post_init__(self):
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError(
                f"begin is {self.begin} and end {self.end}; 0 <= begin < end <= 1 is needed"
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it must lie in [0, 1]")

    def unclipped(self) -> UniformTimes:
        """Those of evaluation, whose integrand is the bound's."""
        return UniformTimes(eps=0.0)

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """Times and the factor 1."""
        del schedule
        dense = u_B < self.share
        within = self.end - (self.end - self.begin) * u_B / max(self.share, 1e-9)
        rest = 1 - (u_B - self.share) / max(1 - self.share, 1e-9)
        return jnp.where(dense, within, rest), jnp.ones_like(u_B)
