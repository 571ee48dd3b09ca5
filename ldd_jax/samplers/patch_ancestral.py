"""Whole patches from one ancestral step to the next, their bytes left to right."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import at_least_one
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.base import Step, masked_and_free
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.patch_clock import units
from ldd_jax.samplers.state import SampleState


@register("step", "patch_ancestral")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchAncestral(Step):
    """Each masked patch is revealed with the process's chance, its bytes from left to right.

    The sampler of objective patch_nelbo: inside a patch nothing is drawn as if independent. A step
    makes as many network calls as the longest patch that it reveals has bytes to draw.

    Attributes:
      steps: times 1, 1 - 1 / steps, .. 0.
      size: bytes of a patch where none are given (`Cond.unit`): that of the network's.
    """

    steps: int = 16
    size: int = 4
    clock = "own"
    one_way = "reveals patches of masks, so it needs masked diffusion"
    one_clock = "reveals a patch at one time"
    no_stop = "asks the network byte by byte"
    no_way = "nobody has written how a dictated text passes through a patch"

    def __post_init__(self):
        at_least_one(self, "steps", "size")

    def done(self, net: Net, state: SampleState) -> Array:
        """Rows without masks."""
        return ~jnp.any(masked_and_free(net, state), axis=1)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step, byte after byte."""
        unit, length = units(net, state, self.size), state.z.shape[1]
        kind = state.clock.dtype
        j = jnp.asarray(net.number, kind)
        t = jnp.full_like(state.clock, 1 - j / self.steps)
        s = jnp.maximum(1 - (j + 1) / self.steps, 0)
        last = j + 1 >= self.steps
        chance = net.process.move_probability(
            state.z.reshape(-1), jnp.repeat(t, length), jnp.full(state.z.size, s)
        ).reshape(state.z.shape)
        u = jnp.take_along_axis(draw.at(site=1).uniform((length,)).astype(kind), unit, axis=1)
        wanted = masked_and_free(net, state)
        moves = wanted & ((u < chance) | last)
        place = jnp.arange(length)
        begin = jnp.diff(unit, axis=1, prepend=-1) > 0
        within = place - jax.lax.cummax(jnp.where(begin, place, 0), axis=1)
        cond = net.cond(state._replace(clock=t), segment)
        h, rows = net.given(state.h), draw.rows(length)
        pick = lambda pred, z, t, row: row.categorical(net.process.clean(pred, z, t)).astype(
            z.dtype
        )

        def byte(i: Any, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            z, _ = carry
            trunk = net.denoiser.trunk(state.z, cond._replace(told=z), h)
            here = moves & (within == i)
            new = net.rows(pick, trunk, state.z, t, rows, where=here)
            return positions.where(here, new, z), trunk.latent

        first = jnp.min(jnp.where(moves, within, length))
        most = jnp.max(jnp.where(moves, within + 1, 0))
        # Nothing to draw: one call all the same, as the latent goes on.
        first, most = jnp.where(most > 0, first, 0), jnp.maximum(most, 1)
        z, latent = jax.lax.fori_loop(first, most, byte, (state.z, state.h))
        latent = net.policy.kept(h, latent, net.number)
        calls = state.calls + (most - first).astype(state.calls.dtype)
        return state._replace(z=z, h=latent, calls=calls)
