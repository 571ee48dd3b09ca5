"""Divergences with zero probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.kl import entropy, kl


def test_kl_and_entropy_with_zeros():
    p = jnp.log(jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]))
    q = jnp.log(jnp.array([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]))
    half = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    np.testing.assert_allclose(kl(p, q), [half, np.log(2), np.inf], rtol=1e-6)
    np.testing.assert_allclose(entropy(p)[:2], [np.log(2), 0], atol=1e-7)
    grad = jax.grad(lambda a: jnp.sum(kl(a[:2], q[:2]) + entropy(a[:2])))(p)
    assert np.all(np.isfinite(grad))
