"""Times: every bin once, balanced shards, unbiased importance sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core import registry
from ldd_jax.core.types import TokenSpace
from ldd_jax.objectives.strata import strata, stratified, stratify
from ldd_jax.objectives.times import (
    CrossEntropy,
    GridTimes,
    ImportanceTimes,
    UniformTimes,
    WithReconstruction,
)
from ldd_jax.processes import Masked, MaskedMean, MaskedScore, Uniform, UniformScore
from ldd_jax.schedules import Cosine, LogLinear


@pytest.mark.parametrize("total", [1, 2, 3, 7, 16, 100, 1024])
def test_every_bin_once(total):
    assert sorted(strata(total)) == list(range(total))
    u = np.asarray(stratified(jax.random.key(total), jnp.arange(total), total), np.float64)
    offset = (u * total) % 1
    offset = np.where(offset > 1 - 1e-3, offset - 1, offset)
    np.testing.assert_allclose(offset, offset[0], atol=2e-3)
    bins = np.round(u * total - offset[0]).astype(int) % total
    assert sorted(bins) == list(range(total))


def test_a_microbatch_gets_the_times_of_its_indices():
    index = jnp.arange(64)
    whole = stratified(jax.random.key(0), index, 64)
    np.testing.assert_array_equal(whole[24:40], stratified(jax.random.key(0), index[24:40], 64))


def test_shards_are_balanced():
    total, shards = 1024, 16
    fullest = []
    for shift in np.linspace(0, 1, 50, endpoint=False):
        u = stratify(shift, jnp.asarray(strata(total), jnp.float32), total)
        t = np.asarray(UniformTimes(eps=1e-3)(u, LogLinear())[0])
        fullest.append(t.reshape(shards, -1).mean(1).max())
    assert np.mean(fullest) <= 0.53 and np.max(fullest) <= 0.54


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=["linear", "cosine"])
def test_importance_times_are_unbiased(schedule, x64):
    """int factor(u) f(t(u)) du = int_eps^1 f(t) dt, and masked rows all weigh the same."""
    node, weight = np.polynomial.legendre.leggauss(120)
    u, weight = jnp.asarray((node + 1) / 2), weight / 2
    f = lambda t: np.cos(3 * t) + t
    eps = 0.01
    t, factor = ImportanceTimes(eps=eps)(u, schedule)
    exact = (np.sin(3) - np.sin(3 * eps)) / 3 + (1 - eps**2) / 2
    np.testing.assert_allclose(weight @ (np.asarray(factor) * f(np.asarray(t))), exact, rtol=1e-6)
    np.testing.assert_allclose(np.ptp(factor * schedule.weight(t)), 0, atol=1e-10)
    t, factor = UniformTimes(eps=eps)(u, schedule)
    exact = exact / (1 - eps)
    np.testing.assert_allclose(weight @ (np.asarray(factor) * f(np.asarray(t))), exact, rtol=1e-9)


def test_uniform_times_never_reach_zero():
    u = jnp.asarray([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))], jnp.float32)
    t, factor = UniformTimes(eps=0.0)(u, LogLinear())
    assert np.all(np.asarray(t) > 0) and t[0] == 1 and np.all(np.asarray(factor) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Uniform, UniformScore, Masked, MaskedScore, MaskedMean])
def test_gradients_of_the_last_step_survive_probabilities_that_underflow(kind):
    """s = 0: a gap of 100 in the logits is a probability of 0 in float32."""
    tokens = TokenSpace(size=4, mask=3 if kind is Masked or issubclass(kind, MaskedScore) else None)
    process, grid = kind(tokens=tokens), GridTimes(steps=100)
    z = jnp.asarray([3 if tokens.mask else 0])

    def nats(logits, x):
        return grid.integrand(process, logits, x, z, jnp.asarray([0.01]))[0]

    for gap in (50.0, 100.0, 300.0):
        logits = jnp.asarray([[gap, 0.0, 0.0, 0.0]])
        value, slope = jax.value_and_grad(nats)(logits, jnp.asarray([0]))
        assert np.isfinite(value) and np.isfinite(slope).all(), (kind, gap, value, slope)
    if kind is Uniform:  # and where the token is the impossible one, the loss is still its logit
        value, slope = jax.value_and_grad(nats)(jnp.asarray([[0.0, 300.0, 0.0, 0.0]]), z)
        expected = 100 * (300 - np.log(4 * LogLinear().alpha(0.01) + LogLinear().noise(0.01)))
        assert np.isfinite(slope).all() and abs(value / expected - 1) < 0.02


def test_times_and_contexts_say_what_objectives_ask_of_them():
    made = lambda kind: {n: registry.build(kind, {"name": n}) for n in registry.names(kind)}
    times = made("times")
    assert [n for n, t in times.items() if t.uniform] == ["uniform"]
    assert [n for n, t in times.items() if t.counts_steps] == ["steps"]
    around = [WithReconstruction(UniformTimes()), CrossEntropy()]  # in their place in evaluation
    assert not any(t.uniform or t.counts_steps for t in around)
    assert [n for n, c in made("context").items() if not c.carries] == ["none"]
