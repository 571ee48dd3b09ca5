"""Rollouts: configurations of the production sampler, and what their paths cost.

The order in which sites are revealed does not look at the network, so that a path has probability
p(x, order) = p(order) exp(-nats), nats = sum_d -log x_theta^{site d}(x | sites before, h), with the
latent h carried along the path where there is one. For any weight e^{r(x)} and any network

    W = r(x) + nats,    E e^W = Z,    E W <= log Z

(MDNS, arXiv 2508.10684, eq. 8). With one site a call W is constant, log Z, for ideal conditionals;
sites that are revealed together are drawn independently, so that W varies more, and E e^W is Z
still: the order of a path has the same probability given x.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.logical import constrain
from ldd_jax.core.types import Array, Denoiser, Process
from ldd_jax.samplers.first_hitting import FirstHitting
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.loop import sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.trajectory import along

PRIOR, STEPS = 0, 1


class Paths(NamedTuple):
    """Of B rollouts.

    x int32 [B, L]; order int32 [B, L]: the number of the call that revealed a site; nats [B]:
    -log of the probability of the tokens given the order, NaN where a row had no law.
    """

    x: Array
    order: Array
    nats: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Draws paths of masked diffusion, and computes what a given path costs a network.

    process: with masks; carry: take the latent along, where the network has one; positions: sites
    that a call reveals.
    """

    process: Process
    carry: bool = True
    positions: int = 1

    @property
    def _latent(self) -> Latent:
        return Latent(reset_every=0 if self.carry else 1)

    def _calls(self, length: int) -> int:
        return -(-length // self.positions)

    def draw(self, denoiser: Denoiser, key: Array, index_B: Array, length: int) -> Paths:
        """Paths of a key, each its own whatever is drawn beside it.

        Args:
          denoiser: the network.
          key: PRNG key of the update.
          index_B: numbers of the paths.
          length: L.
        """
        net = Net(denoiser, self.process)
        key_of = lambda site: jax.random.fold_in(key, site)
        z, clock = self.process.prior(example_keys(key_of(PRIOR), index_B), length)
        state, masked = sample(
            net,
            FirstHitting(positions=self.positions),
            Production.of(key_of(STEPS), index_B),
            (constrain(z, "batch", "length"), clock),
            self._calls(length),
            latent=self._latent,
            tail="none",
            record=lambda state: self.process.scored(state.z),
        )
        order = jnp.sum(masked, axis=0, dtype=jnp.int32)
        assert state.lawless is not None
        nats = jnp.where(state.lawless, jnp.nan, state.memory)
        return Paths(self.process.decode(state.z), order, nats)

    def nats(self, denoiser: Denoiser, x: Array, order: Array) -> Array:
        """What given paths cost, nats [B]; gradients reach the network.

        All calls along the path, the latent carried through them; only what enters a call is kept
        for the backward pass. The network is told the calls' times on a linear grid of levels, so
        that one that is told the time has other nats in `draw`.

        Args:
          denoiser: the network.
          x: texts at the paths' ends, [B, L].
          order: number of the call that revealed each position, [B, L].
        """
        batch, length = x.shape
        schedule = self.process.schedule
        calls, share = self._calls(length), self.positions / length
        level = 1 - jnp.arange(calls) * share
        t = schedule.inverse(level * schedule.noise(jnp.ones(())))
        return along(
            Net(denoiser, self.process),
            x,
            jnp.maximum(1 - (order + 0.5) * share, 0),
            jnp.broadcast_to(t[:, None], (calls, batch)),
            latent=self._latent,
            remat=True,
        ).nats
