"""The latent of a bfloat16 network is carried in bfloat16, which loses nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import DiT, Llama
from ldd_jax.denoisers.base import Around
from ldd_jax.denoisers.blt import Blt
from ldd_jax.denoisers.carry import SoftFfn
from ldd_jax.denoisers.hollow import Hollow
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, sample
from ldd_jax.samplers.net import Net
from tests.lab import jit, live_params

TOKENS = TokenSpace(size=6, mask=5)
B, L = 3, 8
HALF = dict(tokens=TOKENS, width=16, heads=2, dtype="bfloat16")
MODELS = {
    "dit": DiT(**HALF, depth=2, cond_width=8),
    "narrow": DiT(**HALF, depth=2, cond_width=8, latent_width=6),
    "llama": Llama(**HALF, depth=1, latent=True),
    "hollow": Hollow(**HALF, depth=1, mix_every=1, cond_width=8, latent=True),
    "patches": Blt(**HALF, depth=1, local_width=8, ngrams=(3,), buckets=16, latent=True),
}


@struct.dataclass
class Wide(Around):
    """Carries float32, as if nothing were known of the type."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """The network's, with its latent in float32."""
        found = self.inner.trunk(z, cond, h, key=key)
        return found._replace(latent=found.latent.astype(jnp.float32))

    def latent(self, batch, length):
        """Zeros."""
        return self.inner.latent(batch, length).astype(jnp.float32)


SLOW = ("hollow", "patches")
EACH = [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MODELS]


@pytest.mark.parametrize("name", EACH)
def test_what_comes_out_is_the_same_to_the_bit(name):
    denoiser = MODELS[name].bind(live_params(MODELS[name], scale=0.3))
    assert denoiser.latent(B, L).dtype == jnp.bfloat16
    z = jax.random.randint(jax.random.key(0), (B, L), 0, 6)

    @jit
    def two(denoiser):
        cond = Cond(clock=jnp.full(B, 0.5))
        first = denoiser.trunk(z, cond, denoiser.latent(B, L)).latent
        second = denoiser.trunk(z, cond, first)
        return first, second.latent, second.features

    (a, b, features), wide = two(denoiser), two(Wide(denoiser))
    assert a.dtype == b.dtype == jnp.bfloat16 and wide[0].dtype == jnp.float32
    assert np.abs(np.asarray(b - a, np.float32)).max() > 0  # the latent acts
    for own, other in zip((a, b, features), wide):
        np.testing.assert_array_equal(np.asarray(own, np.float32), np.asarray(other, np.float32))


@pytest.mark.slow
def test_a_gradient_through_it_is_the_same():
    denoiser = MODELS["narrow"].bind(live_params(MODELS["narrow"], scale=0.3))
    z = jax.random.randint(jax.random.key(0), (B, L), 0, 6)

    def loss(denoiser, wrap):
        net = wrap(denoiser)
        h = net.trunk(z, Cond(), net.latent(B, L)).latent
        return jnp.sum(net.trunk(z, Cond(), h).features.astype(jnp.float32) ** 2)

    half, wide = (
        jit(lambda d, wrap=wrap: jax.grad(loss)(d, wrap))(denoiser) for wrap in (lambda d: d, Wide)
    )
    jax.tree.map(np.testing.assert_array_equal, half, wide)


@pytest.mark.slow
def test_a_sampler_draws_the_same():
    denoiser, index = MODELS["dit"].bind(live_params(MODELS["dit"], scale=0.3)), jnp.arange(B)
    process = Masked(tokens=TOKENS)
    prior = process.prior(example_keys(jax.random.key(1), index), L)
    draw = Production.of(jax.random.key(2), index)
    run = lambda d: jit(lambda: sample(Net(d, process), Ancestral(), draw, prior, 4)[0])()
    half, wide = run(denoiser), run(Wide(denoiser))
    assert half.h.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.z, wide.z)
    np.testing.assert_array_equal(half.h.astype(jnp.float32), wide.h)


def test_what_is_made_in_float32_stays():
    soft = dataclasses.replace(MODELS["dit"], carry=SoftFfn())
    for model in (soft, dataclasses.replace(MODELS["dit"], dtype="float32")):
        assert model.latent_type == jnp.float32
