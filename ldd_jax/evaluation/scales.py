"""Factors of the rate by step, best for the bound of a path, where positions change more than once.

The forward process does not know the sampler, so a path that ends at data is drawn from it alone,
z_0 at t = 1 first, and the path's bound is a sum over steps,

    U = sum_k E KL(q(z_{k+1} | z_k, x) || p_c(z_{k+1} | z_k)),

in which the factor c of step k stands in its own term only: nothing has to be differentiated
through the run, whatever is carried along it. A minimum over a few factors and a parabola through
the three around the least finds each. For masks the same is a grid: `evaluation.path`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.kl import kl
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.leaps import outcome
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

FACTORS = tuple(2.0 ** (i / 4) for i in range(-24, 5))
LEAP = "first_jump"  # a path always has a chance, however large the factor


def law(
    process: Process, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array, factor: Array | float
) -> Array:
    """Log-law [N, V] of a step of tau-leaping at a multiple of the rate.

    Args:
      process: gives the rate.
      pred_NV: its prediction, of `Process.read`.
      z_N: present tokens.
      t_N: time of each row now.
      s_N: time after the step, s < t.
      factor: the multiple, [N] or a number.
    """
    mean = (factor * (t_N - s_N))[:, None] * process.rate(pred_NV, z_N, t_N)
    return outcome(LEAP, mean, z_N, jnp.zeros(z_N.shape, bool))


def costs(
    net: Net,
    draw: Draw,
    z0: Array,
    z: Array,
    t: Array,
    factors: Array,
    *,
    latent: Latent = Latent(),  # noqa: B008 (frozen)
    fixed: Array | None = None,
    segment: Array | None = None,
) -> Array:
    """Nats of every step, row and factor, summed over positions, [M, B, S].

    Args:
      net: what is sampled from.
      draw: randomness of the path.
      z0: clean tokens [B, L].
      z: drawn at t = 1 given these (`process.corrupt_to_prior`).
      t: times of the grid [M + 1].
      factors: [S], or of every step [M, S].
      latent: what becomes of h between calls.
      fixed: positions that stay as they are and cost nothing [B, L]; None = nothing.
      segment: packed documents [B, L].
    """
    process, (batch, length) = net.process, z0.shape
    free = jnp.ones(z0.shape, bool) if fixed is None else ~fixed
    calls = jnp.zeros(batch, jnp.int32)
    x = z0.reshape(-1)

    def nats(pred, z, t, args):
        x, s, factors = args
        true = process.log_posterior(process.one_hot_prediction(x, z, t), z, t, s)
        one = lambda factor: kl(true, law(process, pred, z, t, s, factor))
        return jax.lax.map(one, factors[0]).T

    def call(carry, inputs):
        z, h = carry
        k, t_k, s_k, factors = inputs
        clock = process.clock(jnp.full(batch, t_k), length)
        t_N, s_N = jnp.full(batch * length, t_k), jnp.full(batch * length, s_k)
        state = SampleState(z=z, clock=clock, h=h, free=free, calls=calls, prompt=~free)
        at = dataclasses.replace(net, policy=latent, number=k)
        trunk = at.trunk(state, segment)
        every = jnp.broadcast_to(factors, (batch * length, len(factors)))
        cost = at.rows(nats, trunk, z, clock, (x, s_N, every), where=free)
        flat = z.reshape(-1)
        true = process.log_posterior(process.one_hot_prediction(x, flat, t_N), flat, t_N, s_N)
        new = draw.at(step=k).rows(length).categorical(true).reshape(z.shape)
        cost = jnp.sum(jnp.where(free[..., None], cost, 0), axis=1)
        return (jnp.where(free, new, z0), trunk.latent), cost

    first = (z, net.latent(batch, length))
    steps = len(t) - 1
    by_step = jnp.broadcast_to(factors, (steps, factors.shape[-1]))
    return jax.lax.scan(call, first, (jnp.arange(steps), t[:-1], t[1:], by_step))[1]


def best(costs: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The factors [M] of the least cost, by a parabola in log factor around the least of the S."""
    log, out = np.log(factors), []
    for row in np.asarray(costs, np.float64):
        i = int(np.clip(np.argmin(row), 1, len(row) - 2))
        x, y = log[i - 1 : i + 2], row[i - 1 : i + 2]
        low, here, high = y
        bend = low - 2 * here + high
        move = 0.5 * (low - high) / bend if bend > 0 else np.argmin(y) - 1.0
        out.append(np.exp(x[1] + np.clip(move, -1, 1) * (x[1] - x[0])))
    return np.array(out)
