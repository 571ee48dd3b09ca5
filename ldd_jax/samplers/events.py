"""Events undone in random order: the sampler of processes that count them (SCUD, 2506.08316)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.ancestral import reveal
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

MOST = 1 << 20  # events of a row


@register("step", "events")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Events(Step):
    """The next ceil(events / most_calls) events of a row a call, drawn among all that are left.

    A position with k of its S events among them goes to z' ~ K^k[z', z] sum_a x_theta(a)
    K^(S-k)[a, z']. With one event a call (most_calls at least the events of a row) nothing is
    drawn as if independent, and the law of an ideal network is exact but for the prior's error.
    The counts are the network's clock; a row whose tokens stand still gets a new latent all the
    same, as in training.

    Attributes:
      most_calls: network calls of a row at most.
    """

    most_calls: int = 64
    clock = "own"
    events = True
    processes = "counted events (scud)"
    no_stop = "undoes events until none is left"
    no_way = "nobody has written the prior term of a given text with its counts (docs/carried.md)"

    def __post_init__(self):
        at_least_one(self, "most_calls")

    def init(self, net: Net, state: SampleState) -> Array:
        """Events of a call, [B]."""
        del net
        total = jnp.sum(jnp.where(state.free, state.clock, 0), axis=1)
        return jnp.maximum(jnp.ceil(total / self.most_calls), 1)

    def done(self, net: Net, state: SampleState) -> Array:
        """Rows without events."""
        del net
        return ~jnp.any((state.clock > 0) & state.free, axis=1)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Any,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One call. Kept positions have no events, as in training."""
        del s
        state = state._replace(clock=jnp.where(state.free, state.clock, 0))
        slots = self._slots(net, state.z.shape[1])
        taken = chosen(draw.at(site=1), state.clock, state.memory, slots)
        left = state.clock - taken
        trunk = net.trunk(state, segment)
        z = reveal(net, state, trunk.features, left, draw)
        return state._replace(z=z, clock=left, h=trunk.latent, calls=state.calls + self.calls)

    def _slots(self, net: Net, length: int) -> int:
        """Events that no row exceeds.

        Raises:
          ValueError: where they are too many to be put into an order.
        """
        process: Any = net.process
        mean = length * process.last()
        most = math.ceil(mean + 10 * math.sqrt(mean) + 30)
        if most > MOST:
            raise ValueError(
                f"a row of {length} tokens has {mean:.3g} events; sampler events orders {MOST} at "
                "most (lower process.gamma, or sample shorter rows)"
            )
        return most


def chosen(draw: Draw, count_BL: Array, wanted_B: Array, slots: int) -> Array:
    """How many events of each position are among `wanted` of a row, all equally likely.

    Args:
      draw: its ranking of the slots puts events into a random order.
      count_BL: events that are left.
      wanted_B: how many to take; all, where fewer are left.
      slots: at least the events of any row, static.

    Returns:
      [B, L], at most `count`.
    """
    ends = jnp.cumsum(count_BL, axis=1)
    slot = jnp.arange(slots, dtype=count_BL.dtype)
    owner = jax.vmap(lambda e: jnp.searchsorted(e, slot, side="right"))(ends)
    live = slot < ends[:, -1:]
    rank = draw.ranking(jnp.where(live, jnp.zeros((), count_BL.dtype), -jnp.inf))
    taken = live & (rank < wanted_B[:, None])
    add = lambda where, what: jnp.zeros(count_BL.shape[1], what.dtype).at[where].add(what)
    return jax.vmap(add)(owner, taken.astype(count_BL.dtype))
