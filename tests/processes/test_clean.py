"""p(x0 | z) of every process against enumeration, and the posterior that it is the end of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.kl import entropy
from ldd_jax.oracle.laws import Exact, Law
from ldd_jax.processes import Masked, MaskedMean, MaskedScore, Uniform, UniformScore
from ldd_jax.samplers import Ancestral, sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.schedules import Cosine, Geometric, LinearSigma, LogLinear
from tests.lab import jit

pytestmark = pytest.mark.usefixtures("x64")

T = 0.3


def posteriors(law, alpha):
    """p(x0^i = v | z) for every z [states, L, V], by Bayes over the whole of x."""
    joint = law.forward(alpha) * law.p[None]
    joint = joint / joint.sum(1, keepdims=True)
    return np.stack(
        [
            np.stack([joint[:, law.x[:, i] == v].sum(1) for v in range(law.size)], -1)
            for i in range(law.length)
        ],
        1,
    )


@pytest.mark.parametrize(
    "schedule", [LogLinear(), LinearSigma(sigma_max=4.0), Geometric()], ids=str
)
@pytest.mark.parametrize("kind", [Masked, Uniform])
def test_clean_is_the_posterior_of_the_token_and_not_leave_one_out(kind, schedule):
    law = Law(3, 3, 2, 0.8, masked=kind is Masked)
    process = kind(schedule=schedule, tokens=law.tokens)
    z = jnp.asarray(law.z)
    net = Net(Exact.of(law), process)
    t = jnp.full(len(law.z), T)
    state = SampleState(z=z, clock=t, h=None, free=None, calls=None)
    look = lambda pred, z, t, args: (process.clean(pred, z, t), pred)
    clean, pred = net.rows(look, net.trunk(state), z, t, ())
    alpha = float(schedule.alpha(jnp.asarray(T)))
    truth = posteriors(law, alpha)
    np.testing.assert_allclose(np.exp(clean), truth, atol=1e-9)
    assert (np.abs(np.exp(pred) - truth).max() > 0.05) == (kind is Uniform)


@pytest.mark.parametrize("kind", [Masked, MaskedScore, MaskedMean, Uniform, UniformScore])
def test_clean_is_a_step_to_no_noise(kind):
    masked = issubclass(kind, Masked)
    process = kind(schedule=Cosine(), tokens=Law(3, 4, 1, masked=masked).tokens)
    size = process.tokens.size
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.integers(0, size, 60))
    z = jnp.where(jnp.arange(60) < 20, size - 1, z)
    t = jnp.asarray(rng.uniform(0.01, 0.99, 60))
    pred = process.read(jnp.asarray(rng.normal(0, 2, (60, size))), z, t)
    clean = process.clean(pred, z, t)
    np.testing.assert_allclose(
        np.exp(clean), np.exp(process.log_posterior(pred, z, t, None)), atol=1e-12
    )
    np.testing.assert_allclose(np.exp(clean).sum(-1), 1, atol=1e-9)
    assert np.isfinite(entropy(clean)).all()


@pytest.mark.slow
def test_the_greedy_tail_rewrites_no_finished_token():
    """At t = 1e-5 the posterior of a token is that token, whatever the others say."""
    law = Law(5, 3, 2, 0.8, masked=False)
    process = Uniform(tokens=law.tokens)
    net, n = Net(Exact.of(law), process), 2000
    index = jnp.arange(n)
    prior = process.prior(example_keys(jax.random.key(0), index), 2)
    draw = Production.of(jax.random.key(1), index)
    run = lambda tail: jit(lambda: sample(net, Ancestral(), draw, prior, 16, tail=tail)[0].z)()
    np.testing.assert_array_equal(run("greedy"), run("none"))
