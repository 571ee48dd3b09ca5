"""The hollow network: nothing of a position in what is said of it, latent or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import Hollow
from tests.lab import jit, live_params

V, L = 5, 6
TOKENS = TokenSpace(size=V, mask=4)
MODEL = Hollow(
    tokens=TOKENS, width=8, depth=2, heads=2, cond_width=4, latent=True, time_conditioning=True
)
COND = Cond(clock=jnp.full(1, 0.3))


@pytest.fixture(scope="module")
def network():
    """With parameters that leave nothing at its start."""
    return MODEL.bind(live_params(MODEL, 1))


def jacobian(run):
    """|d out_i / d z_j| of log-weights z [1, L, V], largest entry, [L, L]."""
    z = jax.random.normal(jax.random.key(2), (1, L, V))
    full = jit(jax.jacrev(lambda z: run(z)[0]))(z)[:, :, 0]  # [L, out, L, V]
    return np.abs(np.asarray(full)).max(axis=(1, 3))


@pytest.mark.slow
def test_the_diagonal_of_the_jacobian_is_zero_to_the_bit(network):
    """Without a latent, with one of another text, and over two passes on one text."""
    other = jax.random.normal(jax.random.key(3), (1, L, V))
    out = lambda z, h: network.head(network.trunk(z, COND, h).features.reshape(L, -1))[None]

    def twice(z):
        return out(z, network.trunk(z, COND, None).latent)

    h = jit(lambda z: network.trunk(z, COND, None).latent)(other)
    assert h.shape == (1, L, 16) and np.ptp(np.asarray(h)) > 0
    for run in (lambda z: out(z, None), lambda z: out(z, h), twice):
        found = jacobian(run)
        assert (np.diag(found) == 0).all()
        assert found[~np.eye(L, dtype=bool)].min() > 1e-4  # all others are seen


@pytest.mark.slow
def test_the_latent_counts(network):
    z = jnp.asarray([[0, 1, 2, 3, 4, 0]])
    h = jit(lambda: network.trunk(z, COND, None).latent)()
    run = jit(lambda h: network.trunk(z, COND, h).features)
    features = lambda h: np.asarray(run(h))
    assert np.abs(features(h) - features(None)).max() > 1e-3
    np.testing.assert_array_equal(features(network.latent(1, L)), features(None))


def test_what_it_refuses(network):
    z = jnp.zeros((1, L), jnp.int32)
    with pytest.raises(ValueError, match="no packed documents"):
        network.trunk(z, COND._replace(segment=jnp.ones((1, L), jnp.int32)))
    with pytest.raises(ValueError, match="must divide depth 2"):
        Hollow(tokens=TOKENS, depth=2, mix_every=3)
