"""What a masked sampler pays along its own path: the bound that holds with the latent carried.

When a position is revealed is drawn without looking at the network: position i at call K_i, with
P(K = k) = u_k - u_{k+1} for the levels u of the grid. Its token is drawn from x_theta of that call,
whose latent has gone along all states before. So p(x) = E_K exp(-l(x, K)), l = sum_i -log
x_theta(x^i | z_{K_i}, h_{K_i}), and E_K l is an upper bound of -log p(x) for the very sampler that
draws: its grid, number of steps, read-out and latent. l has the mean of the KL form of the bound
and far less variance. Ancestral sampling, all masked at first.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


class Along(NamedTuple):
    """Of rows run along a path of T calls.

    nats [B]: l(x, K). masked [T, B]: how many positions a call finds masked. loss [T, B]: mean nats
    of these (of those revealed by the call, where only they were looked at); 0 where there are
    none.
    """

    nats: Array
    masked: Array
    loss: Array


def along(
    net: Net,
    z0: Array,
    v: Array,
    t: Array,
    *,
    latent: Latent = Latent(),  # noqa: B008 (frozen)
    fixed: Array | None = None,
    segment: Array | None = None,
    every: bool = False,
    remat: bool = False,
) -> Along:
    """Run the sampler's calls on the states that lead to `z0`.

    Args:
      net: with a process whose positions change once, from the mask.
      z0: clean tokens [B, L].
      v: uniforms [B, L]; position i is masked while v_i is below the call's level. One draw for
        several grids pairs them.
      t: times of the calls [T, B], from 1 down; the last reveals what is left.
      latent: what becomes of h between calls.
      fixed: never masked [B, L]; None = nothing.
      segment: packed documents [B, L].
      every: look at all masked positions of a call, not only at those it reveals.
      remat: keep no more of a call for the backward pass than what it was given.

    Returns:
      See `Along`.
    """
    process = net.process
    free = jnp.ones(z0.shape, bool) if fixed is None else ~fixed
    level = process.schedule.noise(t) / process.schedule.noise(jnp.ones_like(t))
    after = jnp.concatenate([level[1:], jnp.zeros_like(level[:1])])
    batch, length = z0.shape

    def lost(pred, z, t, x):
        logp = process.clean(pred, z, t)
        return -jnp.take_along_axis(logp, x[:, None], -1)[:, 0]

    def call(carry, inputs):
        h, nats = carry
        k, time_B, level_B, after_B = inputs
        masked = free & (v < level_B[:, None])
        now = masked & (v >= after_B[:, None])
        z = process.mask_at(z0, masked)
        clock, calls = process.clock(time_B, length), jnp.zeros(batch, jnp.int32)
        state = SampleState(z=z, clock=clock, h=h, free=free, calls=calls, prompt=~free)
        at = dataclasses.replace(net, policy=latent, number=k)
        trunk = at.trunk(state, segment)
        where = masked if every else now
        loss = at.rows(lost, trunk, z, clock, z0.reshape(-1), where=where)
        pick = lambda on: jnp.sum(jnp.where(on, loss, 0), axis=1)
        mean = pick(where) / jnp.maximum(jnp.sum(where, axis=1), 1)
        return (trunk.latent, nats + pick(now)), (jnp.sum(masked, axis=1), mean)

    call = jax.checkpoint(call, prevent_cse=False) if remat else call
    nats = jnp.zeros(batch, jnp.result_type(float))
    calls = jnp.arange(len(t))
    first = (net.latent(batch, length), nats)
    (_, nats), (masked, loss) = jax.lax.scan(call, first, (calls, t, level, after))
    return Along(nats, masked, loss)
