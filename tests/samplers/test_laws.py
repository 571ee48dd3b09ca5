"""The sampler's exact law on an enumerable p_0: one step, orders, idle steps, forced outcomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Forced, Production
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, LinearGrid, sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.schedules import LogLinear
from tests.lab import Law, index, jit, kl, log_table, table_denoiser, transition

pytestmark = pytest.mark.usefixtures("x64")


def run_law(law, process, logp, steps):
    """Law of the run's result: product of the production steps' matrices, noise removal last."""
    grid = LinearGrid()
    start = np.zeros(len(law.z))
    start[index(np.full(law.length, law.tokens.mask), law.size)] = 1
    p = start
    for i in range(steps):
        t, s = (float(grid(jnp.asarray(float(j)), steps)) for j in (i, i + 1))
        p = p @ transition(law, process, logp, t, s)
    p = p @ transition(law, process, logp, float(grid(jnp.asarray(float(steps)), steps)), None)
    on = (law.z != law.tokens.mask).all(1)
    assert p[~on].sum() == 0
    return p[on]


def test_one_step_misses_exactly_the_total_correlation():
    law = Law(3, 2, 3)
    process = Masked(tokens=law.tokens)
    logp = log_table(law.conditionals(0.5, True))
    end = np.full(len(law.z), 0.0)
    end[index(np.full(3, 2), 3)] = 1
    p = (end @ transition(law, process, logp, 1.0, None))[(law.z != 2).all(1)]
    assert abs(kl(law.p, p) - law.total_correlation()) < 1e-12
    # A grid of one step and the noise removal at 1e-5 is nearly the same thing.
    assert abs(kl(law.p, run_law(law, process, logp, 1)) - law.total_correlation()) < 1e-4


def test_ancestral_converges_with_slope_two():
    law = Law(3, 2, 3, concentration=30.0)
    process = Masked(schedule=LogLinear(eps=0.0), tokens=law.tokens)
    logp = log_table(law.conditionals(0.5, True))
    gaps = [kl(law.p, run_law(law, process, logp, n)) for n in (64, 128)]
    assert abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.25, gaps


def test_the_step_does_what_its_law_says():
    """Forced outcomes reach every state; production draws follow the transition matrix."""
    law = Law(5, 2, 2)
    process = Masked(tokens=law.tokens)
    logp = log_table(law.conditionals(0.5, True))
    net = Net(table_denoiser(law, logp), process)
    n, t, s = len(law.z), 0.7, 0.3
    state = lambda z: SampleState(
        z=jnp.asarray(z),
        clock=jnp.full(len(z), t),
        h=None,
        free=jnp.ones(z.shape, bool),
        calls=jnp.zeros(len(z), jnp.int32),
    )
    step = Ancestral()
    outcome = Forced(tokens=jnp.asarray(law.z[::-1].copy()))
    forced = step(net, state(law.z), jnp.full(n, s), outcome, None)
    np.testing.assert_array_equal(forced.z, law.z[::-1])
    assert forced.calls.tolist() == [1] * n

    draws = 40_000
    matrix = transition(law, process, logp, t, s)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
    mask = np.tile(law.z[-1:], (draws, 1))
    draw = Production.of(jax.random.key(0), jnp.arange(draws))
    out = jit(lambda d, z: step(net, state(z), jnp.full(draws, s), d, None).z)(draw, mask)
    count = np.bincount(index(np.asarray(out), law.size), minlength=n)
    expected = matrix[-1] * draws
    on = expected > 0
    assert count[~on].sum() == 0
    assert ((count - expected)[on] ** 2 / expected[on]).sum() < on.sum() + 5 * np.sqrt(2 * on.sum())


@pytest.mark.slow
def test_expected_number_of_idle_steps():
    law = Law(6, 2, 4)
    schedule = LogLinear(eps=0.0)
    process = Masked(schedule=schedule, tokens=law.tokens)
    net = Net(table_denoiser(law, log_table(law.conditionals(0.5, True))), process)
    runs, steps = 4000, 10
    prior = jnp.full((runs, 4), 2, jnp.int32), jnp.ones(runs)
    draw = Production.of(jax.random.key(1), jnp.arange(runs))
    _, path = jit(
        lambda d: sample(net, Ancestral(), d, prior, steps, tail="none", record=lambda s: s.z)
    )(draw)
    path = np.concatenate([np.asarray(prior[0])[None], path])
    busy = (path[1:] != path[:-1]).any(-1).sum(0)
    t = np.asarray(LinearGrid()(jnp.arange(steps + 1.0), steps))
    p = -np.diff(1 - np.asarray(schedule.alpha(jnp.asarray(t))))
    expected = np.sum(1 - (1 - p) ** 4)
    assert abs(busy.mean() - expected) < 4 * busy.std() / np.sqrt(runs), (busy.mean(), expected)
