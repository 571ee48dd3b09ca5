"""Reveal the positions that the network is surest of: a fixed count, a threshold, or a schedule."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.draws import ranks
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers import orders
from ldd_jax.samplers.base import Step, masked_and_free
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.orders import candidates, check_order, rank, share_masked
from ldd_jax.samplers.state import SampleState

WHY = "reveals masked positions one after the other, so it needs masked diffusion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnClock(Step):
    """What rules share that reveal until no mask is left; `_chosen` says which positions go.

    A network that is told the time is told the one at which as many positions would be masked.
    """

    clock = "own"
    one_way = WHY
    order: str = "confidence"

    def __post_init__(self):
        check_order(self.order)

    def way(self, process: Process) -> Way:
        """In its order, which nobody but the network decides where it has no noise."""
        del process
        return orders.way(self.registered[1], self.order)  # type: ignore[attr-defined]

    def init(self, net: Net, state: SampleState) -> Any:
        """Number of positions to reveal, [B]."""
        return jnp.sum(masked_and_free(net, state), axis=1)

    def done(self, net: Net, state: SampleState) -> Array:
        """Rows without masks."""
        return ~jnp.any(masked_and_free(net, state), axis=1)

    def _chosen(self, found, wanted: Array, draw: Draw) -> Array:
        raise TypeError

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One call; reveals at least one position of every row that has a mask."""
        del s
        time_B = share_masked(net, state, state.memory)
        clock = net.process.clock(time_B, state.z.shape[1])
        state = state._replace(clock=clock)
        trunk = net.trunk(state, segment)
        found = candidates(net, trunk, state, draw.at(site=0), self.order)
        wanted = masked_and_free(net, state)
        chosen = wanted & self._chosen(found, wanted, draw.at(site=1))
        return state._replace(
            z=jnp.where(chosen, found.token, state.z),
            h=trunk.latent,
            calls=state.calls + self.calls,
        )


@register("step", "confidence")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Confidence(OwnClock):
    """The `count` first positions by `order`, and all whose max p exceeds `threshold` (1 = off).

    With `factor` > 0 also the n surest, n the largest with (n + 1) (1 - c_n) < factor, c_n the
    n-th largest max p (Fast-dLLM, arXiv 2505.22618, its bound for greedy tokens).
    `order` is confidence, entropy, margin, random or sampled (probability of the drawn token);
    `noise` > 0 adds Gumbel noise of that scale to the order. count = 1 has no discretisation error
    with an exact network, whatever the order.
    """

    count: int = 1
    threshold: float = 1.0
    noise: float = 0.0
    factor: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count is {self.count}; at least 1 position a step is revealed")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must lie in (0, 1], 1 = off")
        if self.noise < 0 or self.factor < 0:
            raise ValueError(
                f"noise is {self.noise}, factor {self.factor}; both must be 0 (none) or more"
            )

    def way(self, process: Process) -> Way:
        """In its order, with its noise."""
        del process
        return orders.way("confidence", self.order, self.noise)

    def _chosen(self, found, wanted: Array, draw: Draw) -> Array:
        place = rank(found.cost, wanted, draw, order=self.order, noise=self.noise)
        first = place < self.count
        if self.factor:
            number = ranks(jnp.where(wanted, -found.top, jnp.inf)) + 1
            first |= (number + 1) * (1 - found.top) < self.factor
        return first if self.threshold == 1 else first | (found.top > self.threshold)


@register("step", "scheduled_confidence")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduledConfidence(Step):
    """MaskGIT (arXiv 2202.04200): after a step to s, floor(n (1 - alpha_s)) stay masked.

    n is the number to reveal; the grid is the schedule of counts (cosine: MaskGIT's). `order`
    "sampled" ranks by the probability of the drawn token; `noise` * t scales Gumbel noise.
    """

    finishes = True
    one_way = WHY
    one_clock = "leaves as many masks as the time says"
    order: str = "sampled"
    noise: float = 0.0

    def __post_init__(self):
        check_order(self.order)
        if self.noise < 0:
            raise ValueError(f"noise is {self.noise}; it must be 0 (none) or more")

    def way(self, process: Process) -> Way:
        """In its order, with its noise."""
        del process
        return orders.way("scheduled_confidence", self.order, self.noise)

    def init(self, net: Net, state: SampleState) -> Any:
        """Number of positions to reveal, [B]."""
        return jnp.sum(masked_and_free(net, state), axis=1)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        trunk = net.trunk(state, segment)
        found = candidates(net, trunk, state, draw.at(site=0), self.order)
        wanted = masked_and_free(net, state)
        noise = self.noise * state.clock[:, None] if self.noise else 0.0
        place = rank(found.cost, wanted, draw.at(site=1), order=self.order, noise=noise)
        left = jnp.floor(state.memory * net.process.schedule.noise(s)).astype(jnp.int32)
        count = jnp.maximum(jnp.sum(wanted, axis=1) - left, 0)
        chosen = wanted & (place < count[:, None])
        return state._replace(
            z=jnp.where(chosen, found.token, state.z),
            h=trunk.latent,
            calls=state.calls + self.calls,
        )
