"""Rollouts and their log-weights: constant for ideal conditionals, unbiased for any network."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.oracle.enumerating_draw import EnumeratingDraw
from ldd_jax.oracle.lab import at_rest
from ldd_jax.oracle.laws import Exact, states
from ldd_jax.processes import Masked
from ldd_jax.samplers import FirstHitting, Rollouts
from ldd_jax.samplers.net import Net
from ldd_jax.targets import Ising, Potts
from tests.lab import jit, live_params


def space(target):
    return TokenSpace(size=target.states + 1, mask=target.states)


def ideal(target):
    """The denoiser that knows all conditionals of an enumerable target, float64."""
    x = jnp.asarray(states(target.states, target.sites))
    p = jax.nn.softmax(target.log_weight(x))
    return Exact(p, x, target.states + 1, True)


def network(target, latent=False, seed=0):
    model = DiT(
        tokens=space(target), width=16, depth=1, heads=2, adaln=False, latent=latent, torus=0
    )
    return model, live_params(model, seed, 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("target", [Ising(side=2), Ising(side=3, beta=0.6), Potts(side=2)])
def test_w_is_constant_for_ideal_conditionals(target, x64):
    """Whatever order and values: log Z to rounding, by draws and along given paths."""
    rollouts = Rollouts(process=Masked(tokens=space(target)))
    denoiser = ideal(target)
    run = jax.jit(lambda key: rollouts.draw(denoiser, key, jnp.arange(64), target.sites))
    found = run(jax.random.key(3))
    assert len({tuple(o) for o in np.asarray(found.order).tolist()}) > 20
    assert sorted(np.asarray(found.order)[0].tolist()) == list(range(target.sites))
    log_z = target.truth().log_z
    w = target.log_weight(found.x) + found.nats
    np.testing.assert_allclose(w, log_z, rtol=0, atol=1e-10)
    again = rollouts.nats(denoiser, found.x, found.order)
    np.testing.assert_allclose(again, found.nats, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "latent, carry, positions",
    [(False, True, 1), (True, True, 1), (True, False, 1), (True, True, 4)],
)
def test_a_drawn_path_costs_what_it_costs_along_itself(latent, carry, positions):
    """Also with the latent carried, which makes a difference, and with several sites a call."""
    target = Ising(side=3)
    model, params = network(target, latent)
    denoiser = model.bind(params)
    how = dict(carry=carry, positions=positions)
    rollouts = Rollouts(process=Masked(tokens=space(target)), **how)
    index = jnp.arange(5, 37)
    draw = jit(lambda r, i: r.draw(denoiser, jax.random.key(1), i, 9), static_argnums=0)
    found = draw(rollouts, index)
    cost = jit(lambda r, p: r.nats(denoiser, p.x, p.order), static_argnums=0)
    np.testing.assert_allclose(cost(rollouts, found), found.nats, rtol=2e-5)
    calls = -(-9 // positions)
    assert np.bincount(np.asarray(found.order)[0]).tolist() == [
        min(positions, 9 - positions * call) for call in range(calls)
    ]
    other = cost(dataclasses.replace(rollouts, carry=not carry), found)
    assert (np.abs(other - found.nats).max() > 0.01) == latent
    # A path is its own whatever is drawn beside it.
    one = draw(rollouts, index[7:9])
    np.testing.assert_array_equal(one.x, found.x[7:9])
    np.testing.assert_array_equal(one.order, found.order[7:9])


def every_path(target):
    """All orders and values [C, L] of a target: order, x."""
    orders = np.array(list(itertools.permutations(range(target.sites))), np.int32)
    values = states(target.states, target.sites)
    return np.repeat(orders, len(values), 0), np.tile(values, (len(orders), 1))


@pytest.mark.slow
@pytest.mark.parametrize("latent", [False, True])
def test_e_to_the_w_is_unbiased_over_all_paths(latent, x64):
    """The production rule with every outcome dictated: its own law, and its own account of it."""
    target = Ising(side=2, beta=0.5)
    model, params = network(target, latent)
    denoiser = model.bind(jax.tree.map(lambda a: a.astype(jnp.float64), params))
    process = Masked(tokens=space(target))
    order, x = every_path(target)
    net, step, length = Net(denoiser, process), FirstHitting(), target.sites

    def run(order, x):
        z = jnp.full(x.shape, target.states, jnp.int32)
        state, log_p = at_rest(net, step, z), 0.0
        for call in range(length):
            # Ranks of this call: the site whose turn it is comes first, the open ones follow.
            left = jnp.where(order >= call, order - call, length + jnp.arange(length))
            ranks = jnp.argsort(jnp.argsort(left, axis=1), axis=1)
            token = jnp.where(order == call, x, state.z)
            draw = EnumeratingDraw({(1,): ranks, (0,): token})
            state = step(net, state, None, draw, None)
            log_p += draw.log_probability
        return state.z, state.memory, log_p

    z, nats, log_p = jax.jit(run)(jnp.asarray(order), jnp.asarray(x))
    np.testing.assert_array_equal(z, x)
    # A call's ranking fixes the sites after its first one too: (n - 1)! rankings have this first.
    log_p = np.asarray(log_p) + sum(np.log(np.arange(1, n)).sum() for n in range(1, length + 1))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(log_p, -nats - np.log(24), rtol=0, atol=1e-9)
    w = np.asarray(target.log_weight(jnp.asarray(x))) + np.asarray(nats)
    assert np.sum(np.exp(log_p + w)) == pytest.approx(np.exp(target.truth().log_z), rel=1e-10)
    assert np.sum(np.exp(log_p) * w) < target.truth().log_z - 0.01  # the ELBO of a poor network


def test_several_sites_a_call_leave_it_unbiased():
    """W varies then, even for ideal conditionals; its mean exponential does not move."""
    target = Ising(side=2, beta=0.5)
    denoiser = ideal(target)
    rollouts = Rollouts(process=Masked(tokens=space(target)), positions=2)
    run = jit(lambda key: rollouts.draw(denoiser, key, jnp.arange(20_000), 4))
    found = run(jax.random.key(0))
    w = np.asarray(target.log_weight(found.x) + found.nats, np.float64)
    z = np.exp(w - target.truth().log_z)
    assert w.std() > 0.2 and abs(z.mean() - 1) < 4 * z.std() / np.sqrt(len(z))
    assert w.mean() < target.truth().log_z - 0.05
