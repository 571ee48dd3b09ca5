"""Warm-up over temperatures: a target's log-weight times a factor that rises to 1 by stages."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array


@register("warmup", "stages")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """log_weight times factors[i] in the i-th of equal stages of the first `updates`, then 1.

    A factor below 1 is a temperature above the target's: for a lattice at beta it is beta' / beta.

    Attributes:
      factors: of the stages, in their order; none = no warm-up.
      updates: that all stages take together.
    """

    factors: tuple[float, ...] = ()
    updates: int = 0

    def __post_init__(self):
        if not all(0 < f < 1e6 for f in self.factors):
            raise ValueError(f"factors are {self.factors}; they must be above 0")
        if bool(self.factors) != (self.updates > 0) or self.updates < 0:
            raise ValueError(
                f"updates is {self.updates} and factors are {self.factors}; give both, or neither"
            )

    def __call__(self, step: Array | int) -> Array:
        """The factor of the update that follows `step` updates."""
        if not self.factors:
            return jnp.ones(())
        stage = jnp.asarray(step) * len(self.factors) // self.updates
        table = jnp.asarray((*self.factors, 1.0))
        return table[jnp.minimum(stage, len(self.factors))]
