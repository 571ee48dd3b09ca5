"""Classifier-free guidance: short cuts equal the general path, laws are normalised, two latents."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.samplers import Ancestral, ThetaTrapezoidal, sample
from ldd_jax.samplers.base import Net
from ldd_jax.samplers.guidance import combine, guide, pair
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, Toy

B, L, NULL = 4, 5, 3
INDEX, LABEL = jnp.arange(B), jnp.asarray([0, 1, 2, 1])


@struct.dataclass
class Labelled(Toy):
    """The toy with a class added to its features; the null class adds nothing."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        found = super().trunk(z, cond._replace(label=None), h)
        shift = jnp.sin(2.0 * cond.label + 1) * (cond.label != NULL)
        return found._replace(features=found.features + shift[:, None, None])


def run(net, step, steps=4):
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), L)
    draw = Production.of(jax.random.key(2), INDEX)
    return jit(lambda: sample(net, step, draw, prior, steps)[0])()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_short_cuts_equal_the_general_path(kind):
    net = Net(Labelled.make(), PROCESSES[kind], tile=6)
    z = {}
    for gamma in (0.0, 1.0):
        short = run(guide(net, LABEL, null=NULL, gamma=gamma), Ancestral())
        full = run(pair(net, LABEL, null=NULL, gamma=gamma), Ancestral())
        np.testing.assert_array_equal(short.z, full.z)
        np.testing.assert_array_equal(full.calls, 2 * short.calls)
        which = 0 if gamma else 1
        np.testing.assert_allclose(full.h[which], short.h)
        z[gamma] = short.z
    strong = run(guide(net, LABEL, null=NULL, gamma=3.0), ThetaTrapezoidal())
    assert (z[0.0] != z[1.0]).any() and strong.calls.tolist() == [2 * (4 * 2 + 1)] * B
    if kind == "masked":
        assert (strong.z != MASK).all()
    assert all((h[..., 0] == 4 * 2 + 1).all() for h in strong.h)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["masked", "uniform"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 0.5, 4.0])
def test_guided_posteriors_are_normalised_and_right(kind, gamma):
    process = PROCESSES[kind]
    net = pair(Net(Labelled.make(), process), LABEL, null=NULL, gamma=gamma)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(0, 2, (7, 2, 5)))
    z = jnp.asarray([MASK] * 4 + [0, 1, 4])
    t, s = jnp.full(7, 0.7), jnp.full(7, 0.4)
    guided = net.process
    law = guided.log_posterior(guided.read(logits, z, t), z, t, s)
    np.testing.assert_allclose(np.exp(law).sum(-1), 1, atol=1e-12)
    single = [process.log_posterior(process.read(logits[:, i], z, t), z, t, s) for i in (0, 1)]
    if gamma in (0.0, 1.0):
        np.testing.assert_allclose(np.exp(law), np.exp(single[int(1 - gamma)]), atol=1e-12)
    if kind == "uniform":  # posteriors are combined
        raw = np.exp(gamma * single[0] + (1 - gamma) * single[1])
        np.testing.assert_allclose(np.exp(law), raw / raw.sum(-1, keepdims=True), atol=1e-12)
    else:  # the chance of staying masked is the forward one, whatever gamma
        stay = process.schedule.noise(s) / process.schedule.noise(t)
        np.testing.assert_allclose(np.exp(law[:4, MASK]), stay[:4], atol=1e-12)
        np.testing.assert_array_equal(np.argmax(law[4:], -1), z[4:])


def test_impossible_stays_impossible():
    a, b = jnp.asarray([-jnp.inf, 0.0, -1.0]), jnp.asarray([-jnp.inf, -2.0, -jnp.inf])
    assert combine(a, b, 3.0).tolist() == [-np.inf, 4.0, -np.inf]
    assert dataclasses.is_dataclass(Net)
