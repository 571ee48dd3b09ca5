"""Classifier guidance against the law p(x | y) of a small joint law, known exactly."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy import stats

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.oracle import laws
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Ancestral, FirstHitting, LinearGrid, ThetaTrapezoidal, sample
from ldd_jax.samplers.classifier import steer
from ldd_jax.samplers.loop import start
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from tests.lab import jit
from tests.samplers.rules import PROCESSES, Toy

CLASSES, T = 3, 0.6


@struct.dataclass
class Bayes:
    """p(y | z, t) = sum_x p(x) p(y | x) q(z | x) / sum_x p(x) q(z | x); both multilinear in z."""

    p: jax.Array  # [X]
    given: jax.Array  # [X, CLASSES]
    x: jax.Array  # [X, L]
    table: jax.Array  # identity
    masked: bool = struct.field(pytree_node=False)

    def __call__(self, e, clock, label):
        alpha = jnp.exp(-clock)
        size, letters = e.shape[-1], self.x.max() + 1
        token = jnp.arange(size)
        if self.masked:
            same = jax.nn.one_hot(self.x, size)[None]
            q = (
                alpha[:, None, None, None] * same
                + jnp.where(token == letters, 1 - alpha[:, None], 0)[:, None, None, :]
            )
        else:
            q = alpha[:, None, None, None] * jax.nn.one_hot(self.x, size) + (
                (1 - alpha) / size
            ).reshape(-1, 1, 1, 1)
        likelihood = jnp.prod(jnp.einsum("blv,bxlv->bxl", e, q), -1) * self.p
        joint = likelihood @ self.given
        return jnp.log(joint[jnp.arange(len(label)), label] / likelihood.sum(-1))


@struct.dataclass
class Mean:
    """Any classifier."""

    table: jax.Array

    def __call__(self, e, clock, label):
        return -3 * (e.mean((1, 2)) - label) ** 2 - clock


def joint(kind):
    """Law, its conditionals given y, the process, the classifier."""
    law = laws.Law(3, 2 if kind == "masked" else 3, 3, masked=kind == "masked")
    process = (Masked if kind == "masked" else Uniform)(tokens=law.tokens)
    given = np.random.default_rng(1).dirichlet(np.ones(CLASSES), len(law.p))
    conditionals = []
    for y in range(CLASSES):
        one = copy.copy(law)
        one.p = law.p * given[:, y] / (law.p @ given[:, y])
        conditionals.append(one)
    classifier = Bayes(
        jnp.asarray(law.p), jnp.asarray(given), jnp.asarray(law.x), jnp.eye(law.size),
        kind == "masked",
    )  # fmt: skip
    return law, conditionals, process, classifier


def everywhere(law, process, net, y):
    """Predictions at every state z and time T, as rows."""
    z = jnp.asarray(law.z)
    t = jnp.full(len(z), T)
    net = net(jnp.full(len(z), y))
    trunk = net.trunk(SampleState(z=z, clock=t, h=None, free=None, calls=None))
    return net.process, net.rows(lambda pred, z, t, _: pred, trunk, z, t, ()), z.reshape(-1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_exact_guidance_of_strength_one_is_the_conditional_law(kind):
    law, conditionals, process, classifier = joint(kind)
    base = Net(laws.Exact.of(law), process)
    for y in range(CLASSES):
        guided, pred, z = everywhere(
            law, process, lambda label: steer(base, classifier, label, gamma=1.0), y
        )
        pred, t = pred.reshape(-1, *pred.shape[2:]), jnp.full(z.shape, T)
        truth_net = Net(laws.Exact.of(conditionals[y]), process)
        _, truth, _ = everywhere(law, process, lambda label, net=truth_net: net, y)
        truth = truth.reshape(-1, law.size)
        np.testing.assert_allclose(
            guided.rate(pred, z, t), process.rate(truth, z, t), rtol=1e-9, atol=1e-12
        )
        if kind == "masked":
            np.testing.assert_allclose(np.exp(pred), np.exp(truth), atol=1e-12)
    # the strength matters, and 0 is no guidance
    for gamma in (0.0, 2.0):
        _, other, _ = everywhere(
            law, process, lambda label, g=gamma: steer(base, classifier, label, gamma=g), 0
        )
        _, plain, _ = everywhere(law, process, lambda label: base, 0)
        other = other if kind == "masked" else other[:, :, 0] + other[:, :, 1]
        assert np.allclose(np.exp(other), np.exp(plain), atol=1e-12) == (gamma == 0)
        if kind == "masked":
            np.testing.assert_allclose(np.exp(other).sum(-1), 1, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_first_order_is_the_slope_of_the_classifier(kind):
    law, _, process, classifier = joint(kind)
    base = Net(laws.Exact.of(law), process)
    z = jnp.asarray(law.z)
    t = jnp.full(len(z), T)
    label = jnp.ones(len(z), jnp.int32)
    net = steer(base, classifier, label, gamma=1.0, mode="first_order")
    slope = np.asarray(net._first_order(net.beside(z, t))).reshape(*z.shape, law.size)
    clock = process.conditioning(t)
    for l in range(3):
        e = classifier.table[z]
        for v in range(law.size):
            f = lambda eps, l=l, v=v, e=e: classifier(e.at[:, l, v].add(eps), clock, label)
            np.testing.assert_allclose(
                slope[:, l, v], (f(1e-5) - f(-1e-5)) / 2e-5, rtol=1e-5, atol=1e-6
            )


@pytest.mark.slow
def test_samples_follow_the_conditional_law():
    law, conditionals, process, classifier = joint("masked")
    n, y = 60_000, 1
    net = steer(
        Net(laws.Exact.of(law), process), classifier, jnp.full(n, y), gamma=1.0, mode="exact"
    )
    index = jnp.arange(n)
    prior = process.prior(example_keys(jax.random.key(1), index), 3)
    draw = Production.of(jax.random.key(2), index)
    z = jit(lambda: sample(net, FirstHitting(), draw, prior, 1)[0].z)()
    counts = np.bincount(np.ravel_multi_index(np.asarray(z).T, (2, 2, 2)), minlength=8)
    assert stats.chisquare(counts, n * conditionals[y].p).pvalue > 1e-4
    assert stats.chisquare(counts, n * law.p).pvalue < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "uniform"])
@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_two_stage_rules_latents_and_tiles(kind, mode):
    process, toy = PROCESSES[kind], Toy.make()

    b = jnp.arange(4)
    prior = process.prior(example_keys(jax.random.key(1), b), 5)

    def run(tile, gamma=2.0):
        net = steer(Net(toy, process, tile=tile), Mean(toy.embed), b % 2, gamma=gamma, mode=mode)
        draw = Production.of(jax.random.key(2), b)
        return jit(lambda: sample(net, ThetaTrapezoidal(), draw, prior, 3)[0])()

    whole, tiled = run(0), run(6)
    np.testing.assert_array_equal(whole.z, tiled.z)
    spared = kind == "masked"  # rows without a mask
    assert all(7 - spared <= c <= 7 for c in tiled.calls) and (tiled.calls == tiled.h.T).all()


def test_what_it_refuses():
    net = Net(Toy.make(), PROCESSES["uniform"])
    with pytest.raises(ValueError, match="mode is 'second'"):
        steer(net, None, jnp.zeros(1, jnp.int32), gamma=1.0, mode="second")


@pytest.mark.slow
def test_the_greedy_tail_takes_the_mode_of_the_steered_law():
    b, t = jnp.arange(1), jnp.full(1, 1.0)
    net = Net(Toy.make(), PROCESSES["uniform"])
    guided = steer(net, Mean(net.denoiser.embed), b, gamma=1.0)
    draw = Production.of(jax.random.key(2), b)
    grid = dict(grid=LinearGrid(end=1.0), tail="greedy")
    z = jnp.asarray([[0, 3, 1]]), t
    found = sample(guided, Ancestral(), draw, z, 1, **grid)[0]
    law = lambda pred, z, t, args: guided.process.log_posterior(pred, z, t, None)
    state = start(guided, z, None)
    once = Ancestral()(guided, state._replace(clock=t), t, draw.at(step=0), None)
    best = jnp.argmax(guided.rows(law, guided.trunk(once), once.z, t, ()), -1)
    np.testing.assert_array_equal(found.z, best)


@pytest.mark.usefixtures("x64")
def test_the_whole_law_of_a_step_as_published():
    """Masked: log q(v) + gamma log p(y | z with v at l), the mask among the v, normalised."""
    law, _, process, classifier = joint("masked")
    base, gamma = Net(laws.Exact.of(law), process), 2.0
    guided, pred, z = everywhere(
        law, process, lambda y: steer(base, classifier, y, gamma=gamma, whole=True), 1
    )
    t, s = jnp.full(z.shape, T), jnp.full(z.shape, 0.3)
    found = np.exp(guided.log_posterior(pred.reshape(-1, *pred.shape[2:]), z, t, s))
    _, plain, _ = everywhere(law, process, lambda y: base, 1)
    logq = process.log_posterior(plain.reshape(-1, law.size), z, t, s)
    clock = process.conditioning(jnp.full(len(law.z), T))
    for l in range(3):
        for v in range(law.size):
            changed = jnp.asarray(law.z).at[:, l].set(v)
            value = classifier(classifier.table[changed], clock, jnp.ones(len(law.z), jnp.int32))
            logq = logq.reshape(-1, 3, law.size).at[:, l, v].add(gamma * value)
    expected = np.exp(jax.nn.log_softmax(logq, axis=-1)).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (guided.move_probability(z, t, s) == (z == 2)).all()
