"""Vectors to text at the end of sampling, by the network's decoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Trunk
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, Geodesic, SampleState, read, sample
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.objectives.two_texts import LAW, PROCESS, TwoTexts

ROWS = 20_000


def drawn(step, count, tail="none"):
    index = jnp.arange(ROWS)
    prior = PROCESS.prior(example_keys(jax.random.key(0), index), 1)

    def run(index):
        net, draw = Net(TwoTexts(), PROCESS), Production.of(jax.random.key(1), index)
        state = sample(net, step, draw, prior, count, tail=tail)[0]
        text = read(net, state, Production.of(jax.random.key(2), index), 1)
        return state.z, text

    return jit(run)(index)


@pytest.mark.slow
@pytest.mark.parametrize("step", [Ancestral(), Geodesic()], ids=["ancestral", "geodesic"])
def test_the_exact_network_draws_the_law(step):
    """z_0 is the mixture, and texts have their probabilities: within four standard errors."""
    z, text = drawn(step, 128)
    assert text.z.shape == (ROWS, 1) and (text.calls == 128 + 1).all()
    share, error = float(jnp.mean(text.z == 1)), (0.8 * 0.2 / ROWS) ** 0.5
    assert abs(share - LAW[1]) < 4 * error + 0.004, share
    alpha = float(PROCESS.schedule.alpha(jnp.zeros(())))
    variance = 1 - alpha + alpha * 4 * 0.8 * 0.2
    np.testing.assert_allclose(jnp.mean(z), alpha**0.5 * 0.6, atol=0.03)
    np.testing.assert_allclose(jnp.var(z), variance, atol=0.03)


def test_the_last_call_may_take_the_noise_away():
    """tail sample ends at the estimate, which lies between the points."""
    z, text = drawn(Ancestral(), 8, tail="sample")
    assert (jnp.abs(z) <= 1.001).all() and (text.calls == 8 + 1 + 1).all()


def state_of(z):
    calls = jnp.zeros(len(z), jnp.int32)
    return SampleState(z=z, clock=None, h=None, free=jnp.ones(z.shape[:2], bool), calls=calls)


def test_greedy_reading_is_by_temperature():
    z = jnp.linspace(-2, 2, 41)[:, None, None]
    net = Net(TwoTexts(), PROCESS, readout=Readout(temperature=0.0))
    draw = Production.of(jax.random.key(0), jnp.arange(41))
    text = jit(lambda z: read(net, state_of(z), draw, 3))(z)
    assert text.z.shape == (41, 3) and (text.z == text.z[:, :1]).all()
    assert (jnp.diff(text.z[:, 0]) >= 0).all() and set(np.asarray(text.z[:, 0])) == {0, 1}


def test_rows_without_a_law_are_told():
    class Broken(TwoTexts):
        def reader(self, z):
            inner = super().reader(z)
            return dataclasses.replace(inner, z=jnp.where(z > 1, jnp.nan, z))

    z = jnp.asarray([0.0, 2.0])[:, None, None]
    draw = Production.of(jax.random.key(0), jnp.arange(2))
    text = read(Net(Broken(), PROCESS), state_of(z), draw, 2)
    assert text.lawless.tolist() == [False, True] and (text.z[1] == 0).all()


def test_other_processes_decode_by_themselves():
    process = Masked(tokens=PROCESS.tokens)
    state = state_of(jnp.zeros((2, 3), jnp.int32))
    same = read(
        Net(Trunk(None, None), process), state, Production.of(jax.random.key(0), jnp.arange(2)), 3
    )
    assert same.z is state.z
