"""Ancestral sampling that visits only the intervals in which a row changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.base import Step, masked_and_free
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

HALVINGS = 31  # of a range of steps


@register("step", "skipping")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipping(Step):
    """The law of `ancestral` on the same grid, at a call for every interval that reveals something.

    Every row goes by itself. With n masks left at level 1 - alpha_i, the first of them goes at the
    level (1 - alpha_i) u^(1/n) (arXiv 2409.02908); in the grid's interval (t_k, t_k+1] where that
    is, each other one goes with the rest of that interval's probability, and all of them take
    tokens from one call at z and t_k, as ancestral's do. What is left at the grid's end goes in a
    last call. A row of L masks and N intervals pays N (1 - (1 - 1/N)^L) calls in the mean on a grid
    of equal chances, never more than min(L, N + 1). Idle intervals would change a carried latent.
    The memory is the number of the interval that a row stands before, [B].
    """

    clock = "own"
    walks = True
    latent = "refused"
    one_way = "skips what reveals nothing, so it needs masked diffusion"
    one_clock = "draws the next of reveals that are all alike"
    no_way = "its law is that of ancestral on the same grid; ask for that"

    def init(self, net: Net, state: SampleState) -> Any:
        """Before the first interval."""
        del net
        return jnp.zeros(state.z.shape[0], jnp.int32)

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
        """The next interval that is not idle."""
        del s
        time, length = net.time, state.z.shape[1]
        assert time is not None
        wanted = masked_and_free(net, state)
        u = draw.at(site=2).uniform(())
        level = lambda i: net.process.schedule.noise(time(i).astype(u.dtype))
        at = lambda i: net.process.clock(time(i).astype(u.dtype), length)
        count = jnp.maximum(jnp.sum(wanted, axis=1), 1).astype(u.dtype)
        hit = level(state.memory) * u ** (1 / count)
        number = self._interval(level, state.memory, jnp.asarray(net.steps, jnp.int32), hit)
        ends = jnp.where(number < net.steps, level(number + 1), 0)
        rest = jnp.clip((hit - ends) / jnp.where(hit > 0, hit, 1), 0, 1)

        flat = jnp.zeros(wanted.shape, u.dtype)
        first = draw.at(site=1).ranking(jnp.where(wanted, flat, -jnp.inf)) == 0
        row = draw.at(site=3).rows(length)
        chance = jnp.broadcast_to(rest[:, None], wanted.shape).reshape(-1)
        chosen = wanted & (first | row.event(chance).reshape(wanted.shape))

        state = state._replace(clock=at(number))
        trunk = net.trunk(state, segment)

        def reveal(pred, z, t, args):
            row, chosen = args
            pred = net.process.clean(pred, z, t)
            return row.outcome(pred, chosen.astype(pred.dtype), z)

        args = (draw.at(site=0).rows(length), chosen.reshape(-1))
        z = net.rows(reveal, trunk, state.z, state.clock, args, where=chosen)
        after = jnp.minimum(number + 1, net.steps)
        return state._replace(
            z=positions.where(chosen, z, state.z),
            h=trunk.latent,
            clock=at(after),
            calls=state.calls + self.calls,
            memory=after.astype(jnp.int32),
        )

    def _interval(self, level: Any, low: Array, last: Array, hit: Array) -> Array:
        """The largest i in low .. last with level(i) >= hit; levels never rise."""

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high + 1) // 2
            below = level(middle) >= hit
            return jnp.where(below, middle, low), jnp.where(below, high, middle - 1)

        high = jnp.broadcast_to(last, low.shape)
        return jax.lax.fori_loop(0, HALVINGS, halve, (low, high))[0]
