"""Bounds and laws in float32 where alpha is far below its rounding."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldd_jax import schedules as s
from ldd_jax.core.types import TokenSpace
from ldd_jax.processes.counts import log_poisson
from ldd_jax.processes.score import MaskedMean, MaskedScore, UniformScore
from ldd_jax.processes.uniform import Uniform


@pytest.mark.parametrize("kind", [MaskedScore, MaskedMean, Uniform, UniformScore])
@pytest.mark.parametrize("schedule", [s.Geometric(), s.LinearSigma(sigma_max=20.0)], ids=str)
def test_float32_holds_where_alpha_is_below_its_rounding(kind, schedule, x64):
    """alpha(1) = 2e-9: as 1 - noise it is 0, and ratios, bounds and laws were NaN."""
    masked = issubclass(kind, MaskedScore)
    tokens = TokenSpace(size=4, mask=3 if masked else None)
    settings = {"scale_by_sigma": False} if masked else {}
    process = kind(schedule=schedule, tokens=tokens, **settings)
    z, x = (jnp.asarray([3, 3, 0, 1]), jnp.asarray([0, 2, 0, 1]))
    if not masked:
        x = jnp.asarray([0, 3, 0, 2])

    def look(dtype):
        logits = jnp.asarray(np.random.default_rng(0).normal(0, 1, (4, 4)), dtype)
        t = jnp.asarray([1.0, 0.99, 1.0, 0.97], dtype)
        pred = process.read(logits, z, t)
        law = process.log_posterior(pred, z, t, t * jnp.asarray(0.9, dtype))
        return process.bound(logits, x, z, t), jnp.exp(law)

    for single, double in zip(look(jnp.float32), look(jnp.float64)):
        np.testing.assert_allclose(single, double, rtol=2e-3, atol=1e-5)


def test_counts_keep_their_digits():
    """log P(n) of 100,000 events, about as many as the mean; n log mean - log n! loses four."""
    mean = 1e5
    n = np.arange(99_000, 101_000)
    found = log_poisson(jnp.asarray([mean], jnp.float32), int(n[-1]))[0, n[0] :]
    np.testing.assert_allclose(found, stats.poisson.logpmf(n, mean), atol=1e-4)
