"""Encoder, decoder and denoiser of vectors: what sees what, caches, what is carried, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import Compressor
from ldd_jax.processes import Gaussian
from tests.lab import first_params, jit, live_params

TOKENS = TokenSpace(size=6, mask=5)
SMALL = dict(width=16, heads=2, depth=1, encoder=1, decoder=1, cond_width=8, vectors=3, size=4)
TEXT = jnp.asarray([[0, 4, 2, 1, 3, 3, 0], [4, 4, 3, 0, 1, 2, 2]])
Y = jax.random.normal(jax.random.key(1), (2, 3, 4))


def made(**fields):
    model = Compressor(**SMALL | fields, tokens=TOKENS)
    return model.bind(live_params(model))


@pytest.mark.slow
def test_the_decoder_sees_vectors_and_the_past():
    """Changing token i changes no output before the place that reads it; a vector, all."""
    denoiser = made()
    logits = jit(lambda y, x: denoiser.reader(y).trunk(x, Cond()).features)
    base = logits(Y, TEXT)
    assert base.shape == (2, 7, 16)
    for i in range(7):
        moved = np.asarray(logits(Y, TEXT.at[:, i].set((TEXT[:, i] + 1) % 5)) != base).any(-1)
        assert not moved[:, :i].any() and moved[:, i:].all(), i
    for q in range(3):
        assert np.asarray(logits(Y.at[:, q, 0].add(0.5), TEXT) != base).any(-1).all(), q


@pytest.mark.slow
def test_the_cache_is_the_whole_row():
    denoiser = made()
    reader = denoiser.reader(Y)
    whole = jit(lambda x: reader.trunk(x, Cond()).features)(TEXT)

    def one_by_one(x):
        def step(cache, token):
            out = reader.trunk(token[:, None], Cond(), cache=cache)
            return out.cache, out.features[:, 0]

        return jax.lax.scan(step, reader.cache(2, 7), x.T)[1].swapaxes(0, 1)

    np.testing.assert_allclose(jit(one_by_one)(TEXT), whole, atol=2e-5)


@pytest.mark.slow
def test_the_encoder_sees_all_and_has_unit_variance():
    denoiser = made()
    encode = jit(lambda x: denoiser.encoded(x, Cond()))
    base = encode(TEXT)
    assert base.shape == (2, 3, 4) and base.dtype == jnp.float32
    np.testing.assert_allclose(base.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(base.var(-1), 1, atol=1e-3)
    for i in range(7):
        other = encode(TEXT.at[:, i].set((TEXT[:, i] + 1) % 5))
        assert (jnp.abs(other - base).max(-1) > 1e-6).all(), i
    longer = encode(jnp.concatenate([TEXT, TEXT], axis=1))
    assert longer.shape == base.shape


@pytest.mark.slow
@pytest.mark.parametrize("carried", ["both", "estimate", "hidden"])
def test_what_is_carried(carried):
    """The estimate is the process's reading of the head, and both are read again."""
    denoiser = made(latent=True, carried=carried)
    process, t = Gaussian(vectors=3, size=4), jnp.asarray([0.2, 0.7])
    zeros = denoiser.latent(2, 3)
    assert set(zeros) == {"both": {"estimate", "hidden"}}.get(carried, {carried})

    def run(h):
        out = denoiser.trunk(Y, Cond(clock=process.conditioning(t)), h)
        v = denoiser.head(out.features.reshape(6, 16))
        return out, process.read(v, Y.reshape(6, 4), jnp.repeat(t, 3)).reshape(Y.shape)

    first, read = jit(run)(None)
    np.testing.assert_allclose(jit(run)(zeros)[0].features, first.features, atol=1e-4)
    assert jax.tree.map(jnp.shape, first.latent) == jax.tree.map(jnp.shape, zeros)
    if "estimate" in zeros:
        np.testing.assert_allclose(first.latent["estimate"], read, atol=1e-5)
    for name in zeros:
        other = jit(run)(zeros | {name: first.latent[name]})[0]
        assert jnp.abs(other.features - first.features).max() > 1e-2, name


@pytest.mark.slow
def test_nothing_is_carried_without_a_latent():
    denoiser = made()
    assert denoiser.latent(2, 3) is None and denoiser.timed
    clock = Cond(clock=jnp.zeros(2))
    assert jit(lambda: denoiser.trunk(Y, clock).latent)() is None
    with pytest.raises(ValueError, match="takes no latent"):
        denoiser.trunk(Y, clock, {"estimate": Y})
    with pytest.raises(ValueError, match="told the noise"):
        denoiser.trunk(Y, Cond())
    with pytest.raises(ValueError, match="no cache"):
        denoiser.trunk(Y, clock, cache=())


def test_the_velocity_starts_at_zero():
    """So that an autoencoder's prior is N(0, 1)."""
    model = Compressor(**SMALL, tokens=TOKENS)
    params = first_params(model)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(params["prior"]["head"]))
    shapes = jax.tree.map(jnp.ndim, params)
    axes = jax.tree.map(len, model.axes(), is_leaf=lambda a: isinstance(a, tuple))
    assert shapes == axes
    assert model.operations(12)["head"] == 3 / 12 * 2 * 16 * 4


@pytest.mark.parametrize(
    "fields, why",
    [
        (dict(size=1), "2 numbers or more"),
        (dict(vectors=0), "vectors is 0"),
        (dict(carried="all"), "carried 'all'"),
        (dict(time_conditioning=False), "told their noise"),
        (dict(width=18), "multiple of twice"),
    ],
)
def test_wrong_fields_are_refused(fields, why):
    with pytest.raises((ValueError, UserError), match=why):
        Compressor(**SMALL | fields, tokens=TOKENS)


def test_rows_that_are_not_whole_are_refused():
    denoiser = made()
    padded = Cond(segment=jnp.ones((2, 7), jnp.int32))
    for call in (
        lambda: denoiser.encoded(TEXT, padded),
        lambda: denoiser.reader(Y).trunk(TEXT, padded),
        lambda: denoiser.trunk(Y, padded._replace(clock=jnp.zeros(2))),
    ):
        with pytest.raises(UserError, match="whole and by itself"):
            call()
