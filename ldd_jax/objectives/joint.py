"""Several modalities trained together, each at a time of its own (Multi-Flow, arXiv 2402.04997)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.draws import fold, uniforms
from ldd_jax.core.positions import SIGNAL, TEXT
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Batch, Denoiser, Loss
from ldd_jax.objectives.nelbo import Nelbo

# In the place of the time 0 of a given text: the weight of its bound is infinite there, though no
# row is scored.
GIVEN = 1e-6


@register("objective", "given_signal")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenSignal(Nelbo):
    """The NELBO of tokens by a network that is told a signal beside them (`Cond.signal`)."""

    bounds = True

    @property
    def chain(self) -> str:
        """Of which law it is the bound."""
        return f"{super().chain}, of tokens given their signal"


@register("objective", "joint")
@dataclasses.dataclass(frozen=True, kw_only=True)
class JointNelbo(Nelbo):
    """The tokens' NELBO plus the signal's weighted square error, nats and squares per token.

    Both see the other at a time of its own, so that one network knows the joint law and both
    conditionals. Not a bound: flow matching bounds nothing. `as_bound` is that of the tokens given
    the signal, which is one.

    Attributes:
      separate_t: independent times; False = one time for both.
      share_forward: of the examples, whose text is given: the signal is learned from tokens.
      share_inverse: of the examples, whose signal is given: tokens are learned from a whole signal.
    """

    bounds = False
    joint = True
    separate_t: bool = True
    share_forward: float = 0.1
    share_inverse: float = 0.1

    def __post_init__(self):
        if self.condition_dropout:
            raise ValueError("condition_dropout does not apply: both modalities' times are free")
        super().__post_init__()
        shares = (self.share_forward, self.share_inverse)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"share_forward and share_inverse are {shares}; shares of the whole")
        if not self.times.uniform:
            raise ValueError("the times of objective joint are uniform, for both modalities")
        if self.process is not None and not {TEXT, SIGNAL} <= set(self.process.parts):
            raise ValueError("objective joint is for process joint; use method=joint, lddm_joint")

    def given_signal(self) -> Nelbo:
        """The loss of tokens given the signal: masked diffusion that is told it."""
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(Nelbo)}
        return GivenSignal(**fields | {"process": self.process.words})

    def as_bound(self, passes: int) -> Nelbo:
        """The negative evidence lower bound of tokens given the signal, by the same network."""
        return self.given_signal().as_bound(passes)

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total as above; `loss_B` is the sum per example, unnormalised."""
        cond = batch.cond
        if cond.signal is None:
            raise ValueError("objective joint needs data with a signal (data=chain, pairs, shapes)")
        z0: Any = {TEXT: batch.z0, SIGNAL: cond.signal}
        both = batch._replace(z0=z0, cond=cond._replace(signal=None))
        return super().__call__(denoiser, both, key)

    def corrupted(self, batch: Batch, u_B: Array, keys_B: Array) -> tuple[Any, Any, Array]:
        """Both at their times."""
        own = uniforms(fold(keys_B, 1), (2,))
        mode = own[:, 1]
        forward = mode < self.share_forward
        inverse = ~forward & (mode < self.share_forward + self.share_inverse)
        schedule = self.process.schedule
        text, factor = self.times(u_B, schedule)
        signal, _ = self.times(own[:, 0] if self.separate_t else u_B, schedule)
        times: Any = {
            TEXT: jnp.where(forward, GIVEN, text),
            SIGNAL: jnp.where(inverse, 0, signal),
        }
        z, clock = self.process.corrupt(fold(keys_B, 0), batch.z0, times, batch.keep)
        return z, clock, factor
