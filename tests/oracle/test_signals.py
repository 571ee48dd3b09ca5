"""The chain in closed form, and what one step costs given a signal: by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.data.signal_chain import codes
from ldd_jax.oracle.signals import ExactShown, Shown
from ldd_jax.processes import Masked
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

pytestmark = pytest.mark.usefixtures("x64")
MOVE = np.asarray([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
START = np.asarray([0.5, 0.3, 0.2])
LENGTH = 4
WORDS = np.asarray(list(itertools.product(range(3), repeat=LENGTH)), np.int32)


def shown(noise, code=None):
    code = np.asarray([[-2.0], [0.5], [2.5]]) if code is None else code
    return Shown(*map(jnp.asarray, (START, MOVE, code)), noise)


def weights(law, x, t, seen=None):
    """p(c | x_t, tokens seen) of every word, by enumeration."""
    p = np.exp(np.asarray(law.chain.log_likelihood(jnp.asarray(WORDS))))
    mean = (1 - t) * np.asarray(law.code)[WORDS]
    var = ((1 - t) * law.noise) ** 2 + t**2
    p = p * np.exp(-((x[None] - mean) ** 2).sum((1, 2)) / 2 / var)
    if seen is not None:
        p = p * np.all((seen == 3) | (seen == WORDS), axis=1)
    return p / p.sum()


@pytest.mark.slow
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_posterior_and_velocity(t):
    law = shown(0.4, jnp.asarray(codes(3)))
    x = np.random.default_rng(0).normal(size=(1, LENGTH, 3))
    seen = np.asarray([[3, 1, 3, 3]])
    p = weights(law, x[0], t, seen)
    each = np.stack([[p[WORDS[:, l] == k].sum() for k in range(3)] for l in range(LENGTH)])
    z = {"text": jnp.asarray(seen), "signal": jnp.asarray(x)}
    clock = {"text": jnp.ones(1), "signal": jnp.full(1, t)}
    exact = ExactShown(law)
    features = exact.trunk(z, Cond(clock=clock)).features
    logp, v = exact.head(features)[0], exact.heads["signal"](features)[0]
    np.testing.assert_allclose(np.exp(logp[:, :3]), each, atol=1e-12)
    # E[x | x_t, c] of a Gaussian, c by c; v = E[x - n] by x_t = (1 - t) x + t n.
    var = ((1 - t) * law.noise) ** 2 + t**2
    code = np.asarray(law.code)
    mean = [
        sum(q * (code[k] + (1 - t) * law.noise**2 / var * (x[0, l] - (1 - t) * code[k]))
            for k, q in enumerate(each[l]))
        for l in range(LENGTH)
    ]  # fmt: skip
    wanted = (np.asarray(mean) - x[0]) / t if t else np.zeros_like(x[0])
    np.testing.assert_allclose(v, wanted, atol=1e-12)
    if not t:
        told = exact.trunk(jnp.asarray(seen), Cond(signal=jnp.asarray(x))).features
        np.testing.assert_array_equal(told, features)


@pytest.mark.slow
def test_likelihood_given_the_signal():
    law = shown(0.7)
    _, x = law.draw(jax.random.key(0), 3, LENGTH)
    for row in x:
        got = law.log_given(jnp.asarray(WORDS), jnp.broadcast_to(row, (len(WORDS), LENGTH, 1)))
        np.testing.assert_allclose(np.exp(got), weights(law, np.asarray(row), 0.0), atol=1e-12)


def one_step(law, x):
    """The law of all words by one production call from nothing but masks, [words]."""
    process = Masked(tokens=TokenSpace(size=4, mask=3))
    net = Net(ExactShown(law), process, signal=jnp.asarray(x)[None])
    z, clock = process.prior(jax.random.split(jax.random.key(0), 1), LENGTH)
    free = jnp.ones(z.shape, bool)
    state = SampleState(z=z, clock=clock, h=None, free=free, calls=jnp.zeros(1, jnp.int32))
    post = lambda pred, z, t, args: process.log_posterior(pred, z, t, None)
    logp = np.asarray(net.rows(post, net.trunk(state), z, clock, ()))[0]
    return np.exp(sum(logp[l, WORDS[:, l]] for l in range(LENGTH)))


def correlation(law, x):
    """TC(c | x) of every x, [rows]."""
    words = jnp.asarray(WORDS)

    def one(x):
        x = jnp.broadcast_to(x, (len(words), LENGTH, 1))
        return jnp.exp(law.log_given(words, x)) @ law.total_correlation(words, x)

    return np.asarray(jax.jit(jax.vmap(one))(x))


TABLE = {0.2: 0.0000, 0.5: 0.0014, 1.0: 0.1062, 2.0: 0.5223}


@pytest.mark.slow
def test_one_step_misses_the_total_correlation_given_the_signal():
    """The less the signal tells, the more of it: from nothing to that of the chain alone."""
    rows, found = 2000, {}
    for noise in TABLE:
        law = shown(noise)
        _, x = law.draw(jax.random.key(1), rows, LENGTH)
        each = correlation(law, x)  # of every x, over all words
        found[noise] = float(each.mean())
        p, q = weights(law, np.asarray(x[0]), 0.0), one_step(law, np.asarray(x[0]))
        assert abs(q.sum() - 1) < 1e-12
        assert abs(each[0] - (p * np.log(p / q)).sum()) < 1e-10
    np.testing.assert_allclose([found[n] for n in TABLE], list(TABLE.values()), atol=1e-3)
    law = shown(1e3)
    c, x = law.draw(jax.random.key(1), 1, LENGTH)
    p = weights(law, np.asarray(x[0]), 0.0)
    alone = (p * np.log(p / one_step(law, np.asarray(x[0])))).sum()
    chain = np.exp(np.asarray(law.chain.log_likelihood(jnp.asarray(WORDS))))
    at = [np.bincount(WORDS[:, l], chain, 3)[WORDS[:, l]] for l in range(LENGTH)]
    assert abs(alone - (chain * np.log(chain / np.prod(at, 0))).sum()) < 1e-3
    assert found[2.0] < alone
