"""Block diffusion: left to right by blocks, diffusion within one (BD3-LM, arXiv 2503.09573)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import struct

from ldd_jax.core import positions
from ldd_jax.core.registry import register, runtime
from ldd_jax.core.types import Array, Attend, Batch, Cond, Denoiser, Loss, Trunk
from ldd_jax.denoisers.base import Around
from ldd_jax.objectives.nelbo import Nelbo


@struct.dataclass
class Doubled(Around):
    """A network asked about all blocks of a row in one pass, each after the clean ones before it.

    It runs on [z | told], 2 L positions: noise sees the noise of its block and clean blocks before,
    clean positions see clean blocks up to their own (`Attend`, kind doubled). The clean half has
    h = 0, whatever the latent of the noise, so that its keys and values are those of a cache.
    `cond.told` is the clean row; `cond.clock`, where there is one, has 2 L positions.
    """

    size: int = struct.field(pytree_node=False, default=1)

    def trunk(
        self, z: Array, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Features and latent of the noise, [B, L, ...]; see `Denoiser.trunk`."""
        del cache
        assert cond.told is not None
        length, told = z.shape[1], cond.told.astype(z.dtype)
        both = lambda a, b: jnp.concatenate([a, b], axis=-1 if a.ndim == 1 else 1)
        if cond.position is None:
            place, attend = jnp.arange(length), Attend("doubled", size=self.size)
        else:
            place = cond.position
            attend = Attend("doubled", unit=jnp.broadcast_to(place // self.size, z.shape))
        cond = cond._replace(told=None, position=both(place, place), attend=attend)
        if cond.segment is not None:
            cond = cond._replace(segment=both(cond.segment, cond.segment))
        h = None if h is None else both(h, jnp.zeros_like(h))
        out = self.inner.trunk(both(z, told), cond, h, key=key)
        latent = None if out.latent is None else out.latent[:, :length]
        return Trunk(out.features[:, :length], latent)


@register("objective", "block_nelbo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockNelbo(Nelbo):
    """sum_b E_t E_{z_t^b} sum_i bound_i(x_theta(z_t^b, x^<b, h)), nats per scored token.

    -log p(x) = sum_b -log p(x^b | x^<b), each term bounded by diffusion within the block. Blocks of
    L are the bound of `Nelbo`; blocks of 1 at t = 1 (`times` clipped to 1, or estimator k_form) are
    the likelihood of a left-to-right model. Every block has a time of its own, stratified over
    blocks and batch. The latent lives in the block that is noise: what has been finished has none.
    The blocks are those of the network (`model.block`).
    """

    block: int = runtime()

    by_block = True
    bounds = True

    def __post_init__(self):
        super().__post_init__()
        if self.anneal_steps:
            raise ValueError("block_nelbo has an attention of its own; set anneal_steps to 0")
        p = self.process
        if p is not None and (p.points or p.counts_events or p.by_position or p.parts):
            raise ValueError(
                "block_nelbo gives every block of tokens a time; use process masked or uniform"
            )

    def corrupted(self, batch: Batch, u_B: Array, keys_B: Array) -> tuple[Any, Any, Array]:
        """z_t with a time for every block; see `Nelbo.corrupted`.

        `batch`, `u_B` and `keys_B` are those of `Nelbo.corrupted`.
        """
        length = batch.z0.shape[1]
        unit = self.unit(batch)
        u = in_blocks(u_B, -(-length // self.block), batch.total)
        t, factor = self.times(jnp.take_along_axis(u, unit, axis=1), self.process.schedule)
        corrupt = self.process.corrupt_to_prior if self.whole else self.process.corrupt
        return *corrupt(keys_B, batch.z0, t, batch.keep), factor

    def unit(self, batch: Batch) -> Array:
        """Number of each position's block, [B, L]."""
        place = batch.cond.position
        place = jnp.arange(batch.z0.shape[1]) if place is None else place
        return jnp.broadcast_to(place // self.block, batch.z0.shape)

    def condition(self, batch: Batch, z: Any, clock: Any) -> Cond:
        """And the clean row, of time 0.

        `batch`, `z` and `clock` are those of `Nelbo.condition`.
        """
        clock = jnp.broadcast_to(positions.column(clock), z.shape)
        twice = jnp.concatenate([clock, jnp.zeros_like(clock)], axis=1)
        return super().condition(batch, z, twice)._replace(told=batch.z0)

    def score(
        self,
        denoiser: Denoiser,
        batch: Batch,
        z: Any,
        clock: Any,
        factor: Array,
        gate: Array,
        keys_B: Array | None,
    ) -> Loss:
        """All blocks in one pass; see `Nelbo.score`.

        `denoiser`, `batch`, `z`, `clock`, `factor`, `gate` and `keys_B` are those of `Nelbo.score`.
        """
        both: Any = Doubled(denoiser, size=self.block)
        return super().score(both, batch, z, clock, factor, gate, keys_B)


def in_blocks(u_B: Array, count: int, total: Any) -> Array:
    """Uniforms [B, count] that are stratified over blocks, and over the batch as `u_B` is.

    u + k / count + k / (count total), modulo 1: those of one row lie evenly, and where `count`
    divides `total` so do those of all rows together.

    Args:
      u_B: stratified over the batch.
      count: blocks of a row.
      total: examples of the batch.
    """
    k = jnp.arange(count) / count
    return jnp.mod(u_B[:, None] + k + k / total, 1.0)
