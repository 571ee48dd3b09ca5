"""First-hitting sampling (arXiv 2409.02908): the exact times at which positions are revealed."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step, masked_and_free
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@register("step", "first_hitting")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstHitting(Step):
    """One position of every row a call, each row at its own time; no discretisation error.

    With n masks left, 1 - alpha_t' = (1 - alpha_t) u^(1/n); a masked position, uniformly chosen,
    takes a token from x_theta(z, t'). As many calls as there are positions to reveal. The memory is
    -log of the probability of the tokens drawn so far, [B]: what the order leaves to the network.

    Attributes:
      positions: revealed at a call, all at the time of the first; with more than one the law is no
        longer exact.
    """

    positions: int = 1

    clock = "own"
    one_way = "reveals masked positions at their hitting times, so it needs masked diffusion"
    one_clock = "draws the next of hitting times that are all alike"

    def way(self, process: Process) -> Way:
        """In an order and at times that never look at the network."""
        del process
        return Way()

    def __post_init__(self):
        at_least_one(self, "positions")

    def init(self, net: Net, state: SampleState) -> Any:
        """Nothing is drawn yet."""
        del net
        return jnp.zeros(state.z.shape[0], jnp.result_type(float))

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
        """One position, or so many."""
        del s
        wanted = masked_and_free(net, state)
        count = jnp.maximum(jnp.sum(wanted, axis=1), 1).astype(state.clock.dtype)
        u = draw.at(site=2).uniform(()).astype(state.clock.dtype)
        schedule = net.process.schedule
        state = state._replace(
            clock=schedule.inverse(schedule.noise(state.clock) * u ** (1 / count))
        )
        flat = jnp.zeros(wanted.shape, u.dtype)
        rank = draw.at(site=1).ranking(jnp.where(wanted, flat, -jnp.inf))
        chosen = (rank < self.positions) & wanted
        trunk = net.trunk(state, segment)

        def reveal(pred, z, t, args):
            row_draw, chosen = args
            pred = net.process.clean(pred, z, t)
            token = row_draw.outcome(pred, chosen.astype(pred.dtype), z)
            return token, -jnp.take_along_axis(pred, token[:, None], 1)[:, 0]

        args = (draw.at(site=0).rows(state.z.shape[1]), chosen.reshape(-1))
        z, nats = net.rows(reveal, trunk, state.z, state.clock, args, where=chosen)
        return state._replace(
            z=jnp.where(chosen, z, state.z),
            h=trunk.latent,
            calls=state.calls + self.calls,
            memory=state.memory + jnp.sum(jnp.where(chosen, nats, 0), axis=1),
        )
