"""Forward intensities against the forward kernel that `corrupt` draws from."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace
from ldd_jax.processes import Masked, MaskedScore, Uniform, UniformScore
from ldd_jax.schedules import Cosine, Geometric, LogLinear

pytestmark = pytest.mark.usefixtures("x64")

V, MASK = 5, 2
STEP = 1e-6


def kernel(schedule, t, noise):
    """q(z_{t + STEP} | z_t), [V, V]: a state stays with alpha(t + STEP) / alpha(t)."""
    kept = float(jnp.exp(schedule.sigma(jnp.asarray(t)) - schedule.sigma(jnp.asarray(t + STEP))))
    return kept * np.eye(V) + (1 - kept) * noise


@pytest.mark.parametrize(
    "schedule", [LogLinear(), Cosine(), Geometric()], ids=lambda s: s.registered[1]
)
@pytest.mark.parametrize("make", [Masked, MaskedScore, Uniform, UniformScore])
def test_rates_of_noise_are_the_kernels_derivative(make, schedule):
    masked = make in (Masked, MaskedScore)
    process = make(schedule=schedule, tokens=TokenSpace(size=V, mask=MASK if masked else None))
    noise = np.eye(V)[MASK] if masked else np.full(V, 1 / V)
    np.testing.assert_allclose(process.noise_law(jnp.float64), noise)
    z = jnp.arange(V) if not masked else jnp.asarray([v for v in range(V) if v != MASK])
    for t in (0.1, 0.7):
        times = jnp.full(z.shape, t)
        moves = kernel(schedule, t, noise) / STEP
        np.fill_diagonal(moves, 0)
        found = process.noise_rate(z, times, V)
        np.testing.assert_allclose(found, moves[z], rtol=1e-4)
        total = process.noise_total_rate(z, times)
        np.testing.assert_allclose(total, moves[z].sum(1), rtol=1e-4)
        np.testing.assert_allclose(total, found.sum(1), rtol=1e-12)
