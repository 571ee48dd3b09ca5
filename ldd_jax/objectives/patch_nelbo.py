"""Masked diffusion over whole patches: the bound of a network that is exact inside a patch."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import at_least_one
from ldd_jax.core.draws import fold, uniforms
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Batch, Cond
from ldd_jax.objectives.nelbo import Nelbo


@register("objective", "patch_nelbo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchNelbo(Nelbo):
    """E_t w_t sum over masked patches p of -log p(b_p | latent_p(z_t)), nats per scored byte.

    A patch is one symbol of a finite alphabet, all of it masked with probability 1 - alpha_t, and
    -log p(b_p | latent) = sum_i -log p(b_i | b_<i in p, latent): an upper bound of -log p(b | where
    patches are), tight for exact conditionals. Bytes that are kept stay visible in z. For networks
    that read left to right inside a patch (`model.inner`); they are told the clean bytes.

    Attributes:
      size: bytes of a patch where the data give none (`Cond.unit`): that of the network's.
    """

    size: int = 4

    by_patch = True
    bounds = True

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "size")
        process = self.process
        if process is not None and not (process.absorbing and process.predicts == "clean"):
            raise ValueError("patch_nelbo masks whole patches; use process masked")
        if self.condition_dropout:
            raise ValueError("patch_nelbo hides no condition; set condition_dropout to 0")

    def corrupted(self, batch: Batch, u_B: Array, keys_B: Array) -> tuple[Any, Any, Array]:
        """All of a patch, or nothing; see `Nelbo.corrupted`.

        `batch`, `u_B` and `keys_B` are those of `Nelbo.corrupted`.
        """
        t, factor = self.times(u_B, self.process.schedule)
        batch_size, length = batch.z0.shape
        noise = self.process.schedule.noise
        clock = self.process.clock(t, length)
        # Of evaluation: the forward process whose end the sampler starts from.
        level = noise(clock) / noise(jnp.ones_like(clock)) if self.whole else noise(clock)
        unit = batch.cond.unit
        if unit is None:
            unit = jnp.broadcast_to(jnp.arange(length) // self.size, (batch_size, length))
        u = jnp.take_along_axis(uniforms(fold(keys_B, 0), (length,)), unit, axis=1)
        hidden = (u < positions.column(level)) & ~batch.keep
        return self.process.mask_at(batch.z0, hidden), clock, factor

    def condition(self, batch: Batch, z: Any, clock: Any) -> Cond:
        """And the clean bytes, for what comes after them in their patch.

        `batch`, `z` and `clock` are those of `Nelbo.condition`.
        """
        return super().condition(batch, z, clock)._replace(told=batch.z0)
