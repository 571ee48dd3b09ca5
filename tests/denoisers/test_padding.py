"""Zeros behind the vocabulary: no output, no gradient and no draw knows of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import GPT2, Blt, Compressor, DiT, Hollow, Llama, SignalDiT, layers, padding
from ldd_jax.denoisers.carry import SoftFfn, SoftMask
from tests.lab import jit

V, L = 9, 8
TOKENS = TokenSpace(size=V, mask=8)
Z = jax.random.randint(jax.random.key(0), (2, L), 0, V)
SMALL = dict(tokens=TOKENS, width=16, depth=1, heads=2)
DITS = dict(cond_width=8, **SMALL)
NETWORKS = {
    "dit": DiT(**DITS),
    "soft_mask": DiT(**DITS, carry=SoftMask()),
    "soft_ffn": DiT(**DITS, carry=SoftFfn()),
    "signal": SignalDiT(**DITS, channels=2),
    "llama": Llama(**SMALL, latent=True, lora_rank=2),
    "tied": Llama(**SMALL, tied=True),
    "gpt2": GPT2(**SMALL, positions=L),
    "hollow": Hollow(**DITS, latent=True),
    "blt": Blt(**SMALL, patch=4, buckets=16),
}
MULTIPLE = 16


def outputs(model, params):
    """Logits and latent of two calls, the second with what the first left."""
    denoiser = model.bind(params)
    signal = jnp.ones((2, L, 2)) if isinstance(model, SignalDiT) else None
    cond = Cond(clock=jnp.full(2, 0.3), signal=signal)
    if isinstance(model, Blt):
        cond = Cond()
    h = None
    for _ in range(2):
        out = denoiser.trunk(Z, cond, h)
        h = out.latent
    return denoiser.head(out.features.reshape(-1, out.features.shape[-1])), h


def loss(model, params):
    logits, latent = outputs(model, params)
    return jnp.sum(jnp.sin(logits)) + sum(jnp.mean(a**2) for a in jax.tree.leaves(latent))


def numbers(model, seed=0):
    """Parameters that leave nothing at its start, without compiling `init`."""
    rng = np.random.default_rng(seed)
    draw = lambda like: rng.normal(0, 0.3, like.shape).astype(like.dtype)
    return jax.tree.map(draw, padding.plain_shapes(model))


def both(name):
    """The plain network, the padded one, and parameters of the first laid out for the second."""
    plain = NETWORKS[name]
    padded = dataclasses.replace(plain, vocab_multiple=MULTIPLE)
    shapes = jax.eval_shape(padded.init, jax.random.key(0))
    assert max(max(a.shape, default=0) for a in jax.tree.leaves(shapes)) >= MULTIPLE
    return plain, padded, lambda params: padding.within(params, padded.axes(), shapes)


FAST = ("dit", "gpt2")  # one that is told the time, one that ties its head


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_a_padded_network_is_the_plain_one(name):
    plain, padded, wide = both(name)
    run = lambda params: (outputs(plain, params), outputs(padded, wide(params)))
    one, other = jit(run)(numbers(plain))
    assert one[0].shape == other[0].shape == (2 * L, V)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * np.abs(y).max())
    jax.tree.map(close, one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soft_mask", "tied"])
def test_what_is_behind_has_no_gradient(name):
    """0 to the bit; the rest has that of the plain network."""
    plain, padded, wide = both(name)
    own = lambda tree: padding.without(tree, padded.axes(), V)

    def run(params):
        a = jax.grad(lambda p: loss(plain, p))(params)
        b = jax.grad(lambda p: loss(padded, p))(wide(params))
        return a, own(b), jax.tree.map(lambda x, y: jnp.any(x != y), b, wide(own(b)))

    one, other, behind = jit(run)(numbers(plain))
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)
    jax.tree.map(close, one, other)
    assert not any(jax.tree.leaves(behind))


@pytest.mark.slow
def test_it_begins_with_the_same_numbers():
    for name in ("dit", "llama"):
        plain, padded, wide = both(name)
        make = lambda key, p=plain, q=padded, w=wide: (w(p.init(key)), q.init(key))
        one, other = jit(make)(jax.random.key(3))
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_log_weights_of_the_states_enter_alone():
    """The other way in: softmax(z) E for weights [B, L, V]."""
    z = jax.random.normal(jax.random.key(1), (1, L, V))
    table = lambda padded: layers.Embedding(V, 4, padded=padded)
    params = {"table": jnp.arange(4.0 * V).reshape(V, 4)}
    behind = {"table": jnp.pad(params["table"], ((0, 7), (0, 0)), constant_values=5)}
    want = table(0).apply({"params": params}, z)
    np.testing.assert_allclose(table(16).apply({"params": behind}, z), want, rtol=1e-6)


def test_both_texts_of_a_compressor():
    """Its encoder and its decoder have a vocabulary, its vectors have none."""
    model = Compressor(
        **dict(width=16, heads=2, depth=1, encoder=1, decoder=1, cond_width=8, vectors=2, size=4),
        tokens=TOKENS,
        vocab_multiple=MULTIPLE,
    )
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert params["encoder"]["trunk"]["embed"]["table"].shape[0] == 16
    assert params["decoder"]["trunk"]["embed"]["tokens"]["table"].shape[0] == 16
    assert params["prior"]["head"]["kernel"].shape[-1] == 4

    def read(params):
        reader = model.bind(params).reader(jnp.ones((2, 2, 4)))
        return reader.head(reader.trunk(Z, Cond()).features[:, 0])

    assert jax.eval_shape(read, params).shape == (2, V)


@pytest.mark.parametrize("multiple", [1, 2, 9, 128])
def test_rows_are_the_least_multiple(multiple):
    rows = padding.rounded(TOKENS, multiple)
    assert rows % multiple == 0 and V <= rows < V + multiple


def test_gpt2s_vocabulary_divides_a_tensor_axis():
    model = DiT(**dict(DITS, tokens=TokenSpace(size=50_258, mask=50_257)), vocab_multiple=128)
    assert model.table_rows == 50_304 and not model.table_rows % 8
    with pytest.raises(ValueError, match="vocab_multiple"):
        DiT(**DITS, vocab_multiple=0)
