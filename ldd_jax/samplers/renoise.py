"""Plan what stays: the surest predictions are kept, all other positions become noise again."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from ldd_jax.core.kl import entropy
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.entropy_bounded import prefix
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.orders import check_order, cost_of, rank
from ldd_jax.samplers.state import SampleState


class Drawn(NamedTuple):
    """Of every position [B, L]: a token of its prediction, one of noise, its cost, H in nats."""

    token: Array
    noise: Array
    cost: Array
    entropy: Array


@register("step", "renoise")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Renoise(Step):
    """A token for every position from p(x0 | z); the surest stay, the others are noise anew.

    At least n - floor(n (1 - alpha_s)) of n positions stay after a step to s, as many as are
    expected to be clean there, the first by `order`; with `gamma` > 0 also the longest prefix with
    sum H - max H <= gamma nats (arXiv 2505.24857). With `scheduled` False the entropies alone
    decide, at least one position, as in the sampler published for uniform diffusion (diffusers'
    EntropyBoundScheduler), which its last step may leave with noise that the tail takes for text.
    Every position is drawn again at every step, kept or not.
    """

    no_way = "it throws tokens away, and a text does not say what stood in its places before"
    one_clock = "leaves as much noise as the time says"
    processes = "uniform"
    order: str = "entropy"
    gamma: float = 0.0
    scheduled: bool = True

    def __post_init__(self):
        check_order(self.order)
        if self.gamma < 0:
            raise ValueError(f"gamma is {self.gamma}; it must be 0 or more (nats)")

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Tokens with noise that is no mask only."""
        super().check(process, latent=latent, timed=timed)
        if process.absorbing or process.schedule is None:
            raise ValueError(
                "sampler renoise puts noise where a token was, so it needs uniform diffusion (use "
                "scheduled_confidence, entropy_bounded, remdm)"
            )

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        process, length, free = net.process, state.z.shape[1], state.free
        trunk = net.trunk(state, segment)

        def look(preds, z, t, args):
            of_token, of_noise, free = args
            drawn, own = (process.clean(pred, z, t) for pred in preds)
            law = jnp.log(process.noise_law(drawn.dtype))
            chance = free.astype(drawn.dtype)
            token = of_token.outcome(drawn, chance, z)
            noise = of_noise.outcome(jnp.broadcast_to(law, drawn.shape), chance, z)
            cost = cost_of(self.order, own, jnp.maximum(token, 0))
            return Drawn(token, noise, cost, entropy(own))

        rows: Any = (draw.at(site=0).rows(length), draw.at(site=2).rows(length))
        args = (*rows, free.reshape(-1))
        found = net.rows_of_both(look, trunk, state.z, state.clock, args, where=free)
        place = rank(found.cost, free, draw.at(site=1), order=self.order)
        stay = jnp.zeros_like(free)
        if self.scheduled:
            count = jnp.sum(free, axis=1)
            left = jnp.floor(count * process.schedule.noise(s)).astype(jnp.int32)
            stay = free & (place < (count - left)[:, None])
        if self.gamma > 0 or not self.scheduled:
            stay |= prefix(found.cost, found.entropy, free, place, self.gamma)
        z = jnp.where(stay, found.token, found.noise)
        return state._replace(
            z=jnp.where(free, z, state.z), h=trunk.latent, calls=state.calls + self.calls
        )
