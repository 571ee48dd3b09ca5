"""The published loss of learned samplers, trajectory matching (LSD, arXiv 2509.19962).

A student of M steps scales the rate of step k by Phi_k, chosen so that Phi_k mu(z_k, t_k) of its
own run is next to mu(z*_k, t_k) of a run of many steps, the teacher's: Phi_k = <mu*, mu> / <mu,
mu>. That is the slope of a regression. It is below 1 and falls as the two runs come apart, while
the factors that are best for the law of samples are above 1: it makes samplers worse
(docs/samplers.md). It is here so that this can be seen; `evaluation.path` is what `distill` uses.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.types import Array, Draw
from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.leaps import leap_all
from ldd_jax.samplers.loop import sample, start
from ldd_jax.samplers.net import Net


class Matched(NamedTuple):
    """Phi [M], the student's last tokens [B, L], and both sums behind every Phi."""

    scales: Array
    z: Array
    both: Array
    own: Array


def match(
    net: Net,
    draws: tuple[Draw, Draw],
    prior: tuple[Any, Any],
    steps: int,
    finer: int,
    *,
    grid: Any,
    latent: Latent = Latent(),  # noqa: B008 (frozen)
) -> Matched:
    """Run the teacher, then the student with every step scaled as the rows so far say.

    Args:
      net: what both are sampled from.
      draws: randomness of teacher and student; independent ones are the published case.
      prior: (z, clock) at t = 1, of both.
      steps: M of the student, Euler's rule.
      finer: the teacher takes this many ancestral steps for each of the student's.
      grid: (i, n) -> t; the student's times are among the teacher's.
      latent: what becomes of h, in both runs.

    Returns:
      See `Matched`. A product runs over all rows and target tokens; a rate that is 0 in one run
      enters as 0, as published.
    """
    count = steps * finer
    batch, length = positions.shape(prior[0])
    spread = lambda i: jnp.broadcast_to(grid(1.0 * i, steps), (batch,))
    clock = lambda i: net.process.clock(spread(i), length)
    began = start(net, prior, None)
    _, path = sample(
        net,
        Ancestral(),
        draws[0],
        prior,
        count,
        grid=grid,
        latent=latent,
        tail="none",
        record=lambda state: (state.z, state.h),
    )
    first = lambda a, b: jnp.concatenate([a[None], b[finer - 1 :: finer][:-1]])
    z_star, h_star = jax.tree.map(first, (began.z, began.h), path)

    def step(state, inputs):
        k, z, h = inputs
        t, s = (clock(i) for i in (k, k + 1))
        state = state._replace(clock=t)
        at = dataclasses.replace(net, policy=latent, number=k)
        theirs = dataclasses.replace(at, number=k * finer).trunk(state._replace(z=z, h=h))
        mine = at.trunk(state)
        rate = lambda view: at.process.rate(*view)

        def products(teacher, student, args):
            del args
            mu = rate(student)
            return jnp.sum(rate(teacher) * mu, -1), jnp.sum(mu * mu, -1)

        both, own = at.rows_of_two(products, (theirs, z, t), (mine, state.z, t), ())
        both, own = jnp.sum(both), jnp.sum(own)
        scale = both / own
        z, trunk = leap_all(at, state, (t - s) * scale, "linear", draws[1].at(step=k), None)
        return state._replace(z=z, h=trunk.latent), (scale, both, own)

    inputs = (jnp.arange(steps), z_star, h_star)
    state, (scales, both, own) = jax.lax.scan(step, began, inputs)
    return Matched(scales, state.z, both, own)
