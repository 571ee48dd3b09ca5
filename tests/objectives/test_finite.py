"""Bounds of finite T: against the law of the T-step sampler, and in the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace
from ldd_jax.objectives import GridTimes
from ldd_jax.oracle.laws import Law, index
from ldd_jax.processes import Masked, MaskedMean, Uniform, UniformScore
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import transition

pytestmark = pytest.mark.usefixtures("x64")

PLAIN = LogLinear(eps=0.0)


def bound_of_chain(law, process, logits, steps):
    """sum_k E_{z_t} sum_i KL of GridTimes, plus nothing: [states x], by enumeration."""
    times, out = GridTimes(steps=steps), np.zeros(len(law.x))
    shape = (len(law.z), len(law.x), law.length)
    z = jnp.asarray(np.broadcast_to(law.z[:, None], shape).reshape(-1))
    x = jnp.asarray(np.broadcast_to(law.x[None], shape).reshape(-1))
    rows = jnp.asarray(np.broadcast_to(logits[:, None], (*shape, law.size)).reshape(-1, law.size))
    for k in range(1, steps + 1):
        t = jnp.full(z.shape, k / steps)
        found = np.asarray(times.integrand(process, rows, x, z, t))
        found = np.where(np.asarray(process.scored(z)), found, 0).reshape(shape).sum(-1)
        forward = law.forward(float(process.schedule.alpha(k / steps)))
        out += np.sum(forward * np.where(forward > 0, found, 0), 0) / steps
    return out


def law_of_chain(law, process, logits, steps):
    """What T ancestral steps from the prior draw, [states z]."""
    p = law.forward(0.0)[:, 0]
    for k in range(steps, 0, -1):
        p = p @ transition(law, process, logits, k / steps, (k - 1) / steps)
    return p


@pytest.mark.slow
@pytest.mark.parametrize("make", [Masked, MaskedMean, Uniform])
def test_it_bounds_the_chain(make):
    law = Law(2, 2, 2, masked=make is not Uniform)
    process = make(schedule=PLAIN, tokens=law.tokens)
    logits = np.random.default_rng(0).normal(0, 1, (len(law.z), law.length, law.size))
    where = index(law.x, law.size)
    for steps in (1, 2, 5):
        if make is Uniform and steps == 1:
            continue
        nll = -np.log(law_of_chain(law, process, logits, steps)[where])
        bound = bound_of_chain(law, process, logits, steps)
        if make is MaskedMean:  # a chain may end in the mask: what it makes of x is less likely yet
            assert (bound >= nll - 1e-9).all()
        elif steps == 1:  # nothing between the prior and x: no gap
            np.testing.assert_allclose(bound, nll, rtol=1e-9)
        else:
            assert (bound > nll + 1e-6).all() and (bound < nll + 2).all()


def rows(process, masked, n=40, size=6):
    rng = np.random.default_rng(1)
    logits, t = rng.normal(0, 1, (n, size)), rng.integers(2, 9, n) / 10
    x = rng.integers(0, size - 1, n)
    z = np.full(n, size - 1) if masked else np.where(np.arange(n) < 15, x, rng.integers(0, size, n))
    return tuple(map(jnp.asarray, (logits, x, z, t)))


@pytest.mark.parametrize("make", [Masked, MaskedMean, Uniform, UniformScore])
def test_the_limit_is_the_continuous_bound(make):
    """With an error of order 1 / T (none at all for a masked log-linear one with carry-over)."""
    masked = issubclass(make, Masked)
    tokens = TokenSpace(size=6, mask=5 if masked else None)
    process = make(schedule=Cosine(), tokens=tokens)
    args = rows(process, masked)
    limit = process.bound(*args)
    gaps = [
        float(jnp.max(jnp.abs(GridTimes(steps=n).integrand(process, *args) - limit)))
        for n in (10_000, 20_000)
    ]
    assert gaps[0] < 2e-2 and abs(gaps[0] / gaps[1] - 2) < 0.1, gaps


@pytest.mark.slow
def test_gradients_are_finite_to_the_last_step():
    with jax.enable_x64(False):
        process = MaskedMean(tokens=TokenSpace(size=4, mask=3))
        logits = jnp.asarray([[0.0, 1.0, -90.0, -200.0], [50.0, 0.0, 1.0, 2.0]], jnp.float32)
        x, z, t = jnp.asarray([0, 1]), jnp.asarray([3, 3]), jnp.asarray([0.1, 1.0], jnp.float32)
        total = lambda a: jnp.sum(GridTimes(steps=10).integrand(process, a, x, z, t))
        value, grad = jax.value_and_grad(total)(logits)
        assert jnp.isfinite(value) and jnp.isfinite(grad).all() and (grad != 0).any()


def test_times_are_the_grid():
    t, factor = GridTimes(steps=4)(jnp.linspace(0, 1, 1001)[:-1], PLAIN)
    values, counts = np.unique(np.asarray(t), return_counts=True)
    np.testing.assert_allclose(values, [0.25, 0.5, 0.75, 1.0])
    assert (counts == 250).all() and (factor == 1).all()
