"""Schedules: monotone, one function with its derivative and inverse, and the closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax import schedules as s
from ldd_jax.core.registry import find, names

pytestmark = pytest.mark.usefixtures("x64", "strict")

pi = np.pi
CLOSED = [  # schedule, alpha, -alpha'
    (s.LogLinear(eps=1e-3), lambda t: 1 - 0.999 * t, lambda t: 0.999 + 0 * t),
    (s.LinearSigma(), lambda t: np.exp(-10 * t), lambda t: 10 * np.exp(-10 * t)),
    (
        s.Geometric(),
        lambda t: np.exp(-(1e-4 ** (1 - t)) * 20**t),
        lambda t: 1e-4 ** (1 - t) * 20**t * np.log(2e5) * np.exp(-(1e-4 ** (1 - t)) * 20**t),
    ),
    (
        s.ExponentialSigma(sigma_max=5.0, growth=20.0),
        lambda t: np.exp(-(21**t - 1) / 4),
        lambda t: np.log(21) * 21**t / 4 * np.exp(-(21**t - 1) / 4),
    ),
    (
        s.Cosine(),
        lambda t: 1e-3 + 0.999 * np.cos(pi * t / 2),
        lambda t: 0.999 * pi / 2 * np.sin(pi * t / 2),
    ),
    (
        s.CosineSquared(),
        lambda t: 1e-3 + 0.999 * np.cos(pi * t / 2) ** 2,
        lambda t: 0.999 * pi / 2 * np.sin(pi * t),
    ),
    (
        s.CosineMD4(),
        lambda t: 0.9998 * (1 - np.cos(pi / 2 * (1 - t))) + 1e-4,
        lambda t: 0.9998 * pi / 2 * np.sin(pi / 2 * (1 - t)),
    ),
    (
        s.CosineDuo(),
        lambda t: 1 - np.cos(pi / 2 * (1 - 0.999 * t)),
        lambda t: 0.999 * pi / 2 * np.sin(pi / 2 * (1 - 0.999 * t)),
    ),
    (
        s.Bridge(left=0.1),
        lambda t: 0.9 * (200 ** (1 - t) - 1) / 199,
        lambda t: 0.9 * np.log(200) * 200 ** (1 - t) / 199,
    ),
    (s.Polynomial(power=2.0), lambda t: 0.9998 * (1 - t**2) + 1e-4, lambda t: 0.9998 * 2 * t),
]
IDS = [type(c[0]).__name__ for c in CLOSED]
T = np.linspace(0.02, 0.98, 25)


@pytest.mark.parametrize("schedule, alpha, slope", CLOSED, ids=IDS)
def test_closed_forms(schedule, alpha, slope):
    t = jnp.asarray(T)
    np.testing.assert_allclose(schedule.alpha(t), alpha(T), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(schedule.d_alpha(t), -slope(T), rtol=1e-8)
    assert np.all(np.diff(schedule.alpha(jnp.linspace(0, 1, 101))) < 0)
    h = 1e-6
    slope = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h)
    np.testing.assert_allclose(schedule.d_alpha(t), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("schedule", [c[0] for c in CLOSED], ids=IDS)
def test_derived_quantities(schedule):
    t = jnp.asarray(T[::4])
    noise = schedule.noise(t)
    np.testing.assert_allclose(schedule.sigma(t), -np.log(schedule.alpha(t)), rtol=1e-9)
    np.testing.assert_allclose(schedule.weight(t), -schedule.d_alpha(t) / noise, rtol=1e-12)
    np.testing.assert_allclose(
        schedule.d_sigma(t), jax.vmap(jax.grad(schedule.sigma))(t), rtol=1e-8
    )
    # Near t = 1 a flat noise level holds no more digits of t.
    steep = -schedule.d_alpha(t) > 1e-3
    np.testing.assert_allclose(schedule.inverse(noise)[steep], t[steep], rtol=1e-9)


def test_log_linear_weight_is_one_over_t_down_to_zero_noise():
    t = jnp.asarray([1e-6, 0.3, 1.0], jnp.float32)
    np.testing.assert_allclose(s.LogLinear(eps=0.1).weight(t), 1 / t, rtol=1e-7)


def test_the_two_cosines_differ():
    t = jnp.asarray(0.5)
    values = [float(k().alpha(t)) for k in (s.Cosine, s.CosineMD4, s.CosineSquared)]
    assert min(abs(a - b) for a in values for b in values if a != b) > 0.1
    assert len(set(values)) == 3


ENDLESS = [
    s.LogLinear(eps=0.0),
    s.LogLinear(eps=1e-9),
    s.Cosine(eps=0.0),
    s.CosineSquared(eps=0.0),
    s.CosineMD4(eps=0.0),
    s.CosineDuo(eps=0.0),
    s.Polynomial(eps=0.0),
    s.LinearSigma(sigma_max=1000.0),
]


@pytest.mark.parametrize("schedule", ENDLESS, ids=str)
def test_a_schedule_without_signal_at_the_end_is_told(schedule):
    assert schedule.exhausted() and jax.jit(lambda: jnp.asarray(schedule.exhausted()))()


# A bridge begins without a signal: its points are told t, and have a likelihood all the same.
@pytest.mark.parametrize("name", [n for n in names("schedule") if n != "bridge"])
def test_the_defaults_keep_a_signal(name):
    schedule = find("schedule", name)()
    assert not schedule.exhausted() and np.isfinite(schedule.sigma(jnp.ones(())))
    np.testing.assert_allclose(
        schedule.alpha(jnp.ones(())), np.exp(-schedule.sigma(jnp.ones(()))), rtol=1e-5
    )


def test_duo_cosine_holds_in_float32_at_the_end():
    schedule, one = s.CosineDuo(eps=1e-4), jnp.ones((), jnp.float32)
    np.testing.assert_allclose(schedule.alpha(one), 2 * np.sin(np.pi / 4 * 1e-4) ** 2, rtol=1e-4)
    assert np.isfinite(schedule.sigma(one)) and not schedule.exhausted()
