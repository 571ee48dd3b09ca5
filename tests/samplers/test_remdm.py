"""The loop of remasking: three stretches of time, and tokens taken back in the middle one only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production
from ldd_jax.core.types import TokenSpace
from ldd_jax.processes import Masked
from ldd_jax.samplers import ReMDM
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, Toy

LOOP = ReMDM(strength="loop", eta=0.3, t_on=0.8, t_off=0.2, alpha_on=0.9)


def net(schedule):
    return Net(None, Masked(schedule=schedule, tokens=TokenSpace(size=3, mask=2)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", [LogLinear(eps=0.0), Cosine(eps=0.0)])
def test_time_runs_to_the_held_level_stands_and_goes_on(schedule):
    """Straight from 1 to the time of alpha_on and, after it stood there, from it to 0."""
    time = lambda *t: np.asarray(LOOP._time(net(schedule), jnp.asarray(t)))
    held = time(0.8)
    np.testing.assert_allclose(schedule.alpha(held), 0.9, rtol=1e-12)
    np.testing.assert_allclose(time(1.0, 0.5, 0.2, 0.0), [1, *held, *held, 0], rtol=1e-12)
    np.testing.assert_allclose(time(0.9, 0.1), [(1 + held[0]) / 2, held[0] / 2], rtol=1e-12)
    other = ReMDM(strength="cap")  # no other strength has a clock of that kind
    np.testing.assert_array_equal(other._time(net(schedule), jnp.asarray([0.9, 0.1])), [0.9, 0.1])


def test_nothing_is_taken_back_before_and_after():
    t, s = jnp.asarray([0.9, 0.5, 0.1]), jnp.asarray([0.88, 0.48, 0.08])
    held = (t <= LOOP.t_on) & (t > LOOP.t_off)
    clocks = (LOOP._time(net(LogLinear()), a) for a in (t, s))
    sigma = LOOP._sigma(net(LogLinear()), *clocks, held, jnp.ones((3, 2), bool), ())
    # While alpha stands at .9, sigma_max is (1 - .9) / .9.
    np.testing.assert_allclose(sigma, [[0, 0], [1 / 9, 1 / 9], [0, 0]], rtol=1e-5)


def test_what_was_unsure_when_it_was_written_is_taken_back_sooner():
    """Sigma goes to what is shown, in the ratio of e^-psi."""
    t, s = jnp.asarray([0.6]), jnp.asarray([0.5])
    psi = jnp.log(jnp.asarray([[1.0, 2.0, 4.0, 9.0]]))
    shown = jnp.asarray([[True, True, True, False]])
    rule = ReMDM(strength="conf", eta=1.0)
    sigma = rule._sigma(net(LogLinear(eps=0.0)), t, s, jnp.asarray([True]), shown, psi)
    parts = np.asarray([[1, 1 / 2, 1 / 4, 0]]) / 1.75
    np.testing.assert_allclose(sigma / sigma.sum(), parts, rtol=1e-5)
    assert sigma.sum() > 0.1


def test_a_text_without_masks_is_taken_back_where_it_was_unsure():
    """Position 0 was written with probability e^-9, the others with 1; as often as sigma says."""
    rows, rule = 2_000, ReMDM(strength="conf", eta=0.9)
    net, t = Net(Toy.make(carry=False), PROCESSES["masked"]), jnp.full(rows, 0.6)
    z = jnp.zeros((rows, 3), jnp.int32)
    psi = jnp.exp(jnp.tile(jnp.asarray([-9.0, 0.0, 0.0]), (rows, 1)))
    state = SampleState(z, t, None, z == 0, jnp.zeros(rows), memory=psi)
    draw = Production.of(jax.random.key(0), jnp.arange(rows))
    back = np.asarray(jit(lambda: rule(net, state, t - 0.1, draw, None).z)() == MASK).mean(0)
    sigma = rule._sigma(net, t, t - 0.1, t > 0, state.free, psi)[0]
    np.testing.assert_allclose(back, sigma, atol=4.5 * 0.5 / rows**0.5)
    assert back[0] > back[1] > 0.02
