"""Multi-granularity diffusion (MGDM, arXiv 2410.14157): hard tokens and clean rows weigh more.

With a pseudo-context it is the loss of LDDM-G (arXiv 2510.19304).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one, nearest
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Batch, Denoiser, Loss
from ldd_jax.objectives.nelbo import Nelbo
from ldd_jax.objectives.times import Continuous

WEIGHTS = {
    "linear": lambda k, steps: steps + 1 - k,
    "reciprocal": lambda k, steps: 1 / k,
}


@register("times", "steps")
@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTimes(Continuous):
    """Masked share k / `steps`, k uniform on 1 .. steps; a row weighs steps + 1 - k or 1 / k.

    `weight` is linear or reciprocal (the published "original").
    """

    steps: int = 20
    weight: str = "linear"
    falls = counts_steps = True

    def __post_init__(self):
        at_least_one(self, "steps")
        if self.weight not in WEIGHTS:
            raise ValueError(f"weight {self.weight!r}: {nearest(self.weight, WEIGHTS)}")

    def __call__(self, u_B: Array, schedule: Any) -> tuple[Array, Array]:
        """The time at which the share is k / steps (the last one for k = steps), and the weight."""
        k = self.steps - jnp.floor(u_B * self.steps)
        share = jnp.minimum(k / self.steps, schedule.noise(jnp.ones((), u_B.dtype)))
        return schedule.inverse(share), WEIGHTS[self.weight](k, self.steps)

    @property
    def share(self) -> float:
        """Expected masked share, (steps + 1) / (2 steps)."""
        return (self.steps + 1) / (2 * self.steps)


@register("objective", "mgdm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mgdm(Nelbo):
    """sum_masked w(k) alpha (1 - e^-CE)^gamma CE / expected number of masked tokens.

    CE = -log p(x_i | z); the gradient flows through the token weight, as published. The published
    code divides by the number of masked tokens of the batch; its expectation is known before any
    microbatch is seen. Not a bound: `as_bound` is that of the same network as a masked diffusion.
    """

    times: Any = component("times", StepTimes)
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"alpha is {self.alpha}; it must be above 0")
        if not (self.gamma == 0 or self.gamma >= 1):
            raise ValueError(
                f"gamma is {self.gamma}; it must be 0, or at least 1 for a finite slope"
            )
        if not self.times.counts_steps:
            raise ValueError("the times of mgdm are steps; its weights count them")
        clean = self.process is None or self.process.predicts == "clean"
        if not clean or not (self.process is None or self.process.absorbing):
            raise ValueError("mgdm scores the tokens of masked diffusion; use method=mgdm or nelbo")

    def as_bound(self, passes: int) -> Nelbo:
        """The negative evidence lower bound of masked diffusion, by the same network."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Nelbo)}
        return Nelbo(**fields).as_bound(passes)

    def integrand(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """Alpha (1 - e^-CE)^gamma CE at masked rows."""
        ce = self.process.bound(logits_NV, z0_N, z_N, clock_N)
        ce = ce / self.process.schedule.weight(clock_N)
        focal = (-jnp.expm1(-ce)) ** self.gamma if self.gamma else 1.0  # 0^0 has no slope
        return self.alpha * focal * ce

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total as above; `loss_B` is the sum per example, unnormalised."""
        return super().__call__(denoiser, batch._replace(norm=batch.norm * self.times.share), key)
