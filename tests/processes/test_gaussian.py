"""Gaussian diffusion against what is exact: likelihoods, moments, and the law of a step."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from ldd_jax.processes import Gaussian
from ldd_jax.schedules import Angle, LogLinear

pytestmark = pytest.mark.usefixtures("x64", "strict")

# Two components, arXiv 2107.00630's check by hand: E[y | z] and p(y) are known.
WEIGHT, PLACE, SPREAD = np.array([0.3, 0.7]), np.array([-1.2, 0.6]), np.array([0.3, 0.5])


def normal(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def estimate(z, alpha):
    """E[y | z] of the mixture."""
    root, alpha, noise = (a[..., None] for a in (np.sqrt(alpha), alpha, 1 - alpha))
    total = alpha * SPREAD**2 + noise
    each = WEIGHT * normal(z[..., None], root * PLACE, total)
    mean = PLACE + root * SPREAD**2 / total * (z[..., None] - root * PLACE)
    return (each * mean).sum(-1) / each.sum(-1)


def integral(process, y, denoise, panels=40, nodes=12, hermite=60):
    """int_0^1 E bound dt by quadrature: Gauss-Hermite in the noise, Gauss-Legendre in log t.

    `denoise(z, alpha)` is E[y | z]; the production process makes the rest.
    """
    least = process.schedule.least
    cuts = np.concatenate([[0], np.geomspace(np.sqrt(least) / 10, 1, panels)])
    x, w = np.polynomial.legendre.leggauss(nodes)
    t = np.concatenate([a + (b - a) * (x + 1) / 2 for a, b in zip(cuts, cuts[1:])])
    dt = np.concatenate([(b - a) * w / 2 for a, b in zip(cuts, cuts[1:])])
    n, mass = np.polynomial.hermite_e.hermegauss(hermite)
    alpha, noise = (np.asarray(f(jnp.asarray(t)))[:, None] for f in
                    (process.schedule.alpha, process.schedule.noise))  # fmt: skip
    z = np.sqrt(alpha) * y + np.sqrt(noise) * n
    v = (np.sqrt(alpha) * z - denoise(z, alpha)) / np.sqrt(noise)
    column = lambda a: jnp.asarray(a).reshape(-1, 1)
    clock = jnp.asarray(np.broadcast_to(t[:, None], z.shape)).reshape(-1)
    found = process.bound(column(v), jnp.full((z.size, 1), y), column(z), clock)
    mean = (np.asarray(found).reshape(z.shape) * mass).sum(1) / mass.sum()
    return float((mean * dt).sum())


@pytest.mark.parametrize("y", [-1.5, -0.4, 0.6, 1.9])
def test_the_integral_of_a_mixture_is_its_likelihood(y):
    """-log p(y) = prior + integral + entropy of q(z_0 | y), as noise goes to none: to 1e-6."""
    process = Gaussian(vectors=1, size=1, schedule=Angle(least=1e-8, left=1e-8))
    prior = float(process.prior_term(jnp.full((1, 1, 1), y))[0, 0])
    entropy = 0.5 * np.log(2 * np.pi * np.e * 1e-8)
    found = prior + integral(process, y, estimate) + entropy
    assert abs(found + np.log((WEIGHT * normal(y, PLACE, SPREAD**2)).sum())) < 1e-6


@pytest.mark.parametrize("y", [-1.5, 0.6])
def test_with_noise_left_it_is_the_divergence_of_the_posterior(y):
    """prior + integral = KL(q(z_0 | y) || p(z_0)) + KL of z_1, whatever the schedule's ends."""
    process = Gaussian(vectors=1, size=1, schedule=Angle(least=0.01, left=1e-9))
    root, noise = np.sqrt(0.99), 0.01
    q = lambda z: normal(z, root * y, noise)
    p = lambda z: (WEIGHT * normal(z, root * PLACE, 0.99 * SPREAD**2 + noise)).sum()
    edge = root * y + np.array([-0.9, 0.9])
    kl = quad(lambda z: q(z) * np.log(q(z) / p(z)), *edge, epsabs=1e-11)[0]
    prior = float(process.prior_term(jnp.full((1, 1, 1), y))[0, 0])
    np.testing.assert_allclose(prior + integral(process, y, estimate), kl, atol=1e-7)


@pytest.mark.parametrize("y", [0.0, 1.7])
def test_no_velocity_is_exact_for_standard_normal_vectors(y):
    """An untrained denoiser says so: KL(q(z_0 | y) || N(0, 1)), wherever the schedule ends."""
    process = Gaussian(vectors=1, size=1, schedule=Angle(least=0.04, left=0.2))
    found = integral(process, y, lambda z, alpha: np.sqrt(alpha) * z)
    found += float(process.prior_term(jnp.full((1, 1, 1), y))[0, 0])
    np.testing.assert_allclose(found, 0.5 * (0.96 * y**2 + 0.04 - 1 - np.log(0.04)), atol=1e-8)


def test_bound_and_squares_by_the_estimate():
    process = Gaussian(vectors=2, size=3)
    rng = np.random.default_rng(0)
    v, y, z = (jnp.asarray(rng.normal(size=(7, 3))) for _ in range(3))
    t = jnp.linspace(0.05, 0.95, 7)
    apart = jnp.sum((y - process.read(v, z, t)) ** 2, -1)
    noise = process.schedule.noise(t)
    np.testing.assert_allclose(process.squares(v, y, z, t), apart / noise, rtol=1e-10)
    ratio = lambda t: process.schedule.alpha(t) / process.schedule.noise(t)
    rate = -jax.vmap(jax.grad(ratio))(t)
    np.testing.assert_allclose(process.bound(v, y, z, t), rate * apart / 2, rtol=1e-8)
    level = jax.nn.sigmoid(process.conditioning(t))
    np.testing.assert_allclose(level, process.schedule.alpha(t), rtol=1e-12)
    # The velocity that knows y predicts it.
    true = (jnp.sqrt(process.schedule.alpha(t))[:, None] * z - y) / jnp.sqrt(noise)[:, None]
    np.testing.assert_allclose(process.read(true, z, t), y, rtol=1e-10)


def test_corruption_has_its_moments_and_keeps_the_shape():
    process = Gaussian(vectors=4, size=5)
    keys = jax.random.split(jax.random.key(0), 4000)
    y = jnp.full((4000, 4, 5), 1.5)
    z, clock = process.corrupt(keys, y, jnp.full(4000, 0.4), jnp.zeros((4000, 4), bool))
    alpha = float(process.schedule.alpha(jnp.asarray(0.4)))
    assert z.shape == y.shape and clock.shape == (4000,)
    np.testing.assert_allclose(z.mean(), np.sqrt(alpha) * 1.5, atol=5 / np.sqrt(80_000))
    np.testing.assert_allclose(z.var(), 1 - alpha, atol=0.02)


@pytest.mark.parametrize("t, s", [(1.0, 0.9), (0.5, 0.2), (0.1, 0.0)])
def test_a_step_that_knows_y_has_the_law_of_z_s(t, s):
    """E and variance of z_s over z_t ~ q and the step's own noise, from its three coefficients."""
    process = Gaussian(vectors=1, size=1)
    one = lambda a: jnp.full((1, 1), a)
    at = lambda a: jnp.full(1, a)

    def step(y, z, n):
        draw = SimpleNamespace(normal=lambda shape: jnp.full((1, *shape), float(n)))
        return float(
            process.sample_posterior(draw, one(float(y)), one(float(z)), at(t), at(s))[0, 0]
        )

    a, b, c = step(1, 0, 0), step(0, 1, 0), step(0, 0, 1)
    alpha = lambda t: float(process.schedule.alpha(jnp.asarray(t)))
    np.testing.assert_allclose(a + b * np.sqrt(alpha(t)), np.sqrt(alpha(s)), rtol=1e-12)
    np.testing.assert_allclose(b**2 * (1 - alpha(t)) + c**2, 1 - alpha(s), rtol=1e-12)
    # Markov backwards: the covariance with z_t is that of q as well.
    forward = np.sqrt(alpha(t) / alpha(s))
    np.testing.assert_allclose(b * (1 - alpha(t)), forward * (1 - alpha(s)), rtol=1e-12)
    last = process.sample_posterior(SimpleNamespace(), one(0.7), one(0.1), at(t), None)
    np.testing.assert_array_equal(last, one(0.7))


def test_what_is_refused():
    with pytest.raises(ValueError, match="needs noise at t = 0"):
        Gaussian(schedule=LogLinear())
    for fields in (dict(least=0.0), dict(left=0.6)):
        with pytest.raises(ValueError, match="must lie in"):
            Angle(**fields)
    with pytest.raises(ValueError, match="vectors is 0"):
        Gaussian(vectors=0)
    with pytest.raises(TypeError, match="made of each other by a network"):
        Gaussian().decode(jnp.zeros((1, 8, 16)))
