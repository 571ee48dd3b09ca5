"""Names, sizes and refusals of the reference's layout; every tensor comes back byte for byte."""

import jax
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.interop import recorded, reference
from tests.parity.numpy_reference import forward, random_weights

SIZES = {"hidden": 24, "blocks": 3, "heads": 2, "cond": 10, "V": 13}
TOKENS = TokenSpace(size=13, mask=4)


def weights(loop=True, seed=0):
    return random_weights(np.random.default_rng(seed), SIZES, loop)


def rotary(half, base=10_000.0):
    return (base ** -(np.arange(half) / half)).astype(np.float32)


def test_sizes_come_from_the_tensors():
    found = reference.sizes(weights() | {reference.ROTARY: rotary(6)})
    assert found == dict(
        width=24,
        depth=3,
        heads=2,
        mlp_ratio=4,
        latent=True,
        adaln=True,
        causal=False,
        cond_width=10,
    )
    plain = weights(loop=False) | {"cond_map.embedding_table.weight": np.zeros((5, 10))}
    found = reference.sizes(plain, heads=3)
    assert (found["heads"], found["num_classes"], found["latent"]) == (3, 4, False)
    causal = {n: a for n, a in plain.items() if "adaLN" not in n and "map" not in n}
    found = reference.sizes(causal, heads=1)
    assert found["causal"] and not found["adaln"] and "cond_width" not in found


@pytest.mark.parametrize("loop", [True, False])
def test_the_network_equals_an_independent_one(loop):
    w = weights(loop)
    model, params = reference.network(w, TOKENS, heads=2, time_conditioning=True)
    rng = np.random.default_rng(1)
    x, sigma = rng.integers(0, 13, (3, 7)), rng.uniform(0.1, 4, 3).astype(np.float32)
    arrays = {"x": x, "sigma": sigma}
    names = ("logits_0", "latent_0") if loop else ("logits", "none")
    arrays |= dict(zip(names, forward(w, x, sigma.astype(float), None, 2)))
    found = dict(recorded.outputs(model, jax.tree.map(np.asarray, params), arrays))
    assert set(found) >= {"logits_0", "latent_0"} if loop else set(found) == {"logits"}
    for name in found:
        np.testing.assert_allclose(found[name], arrays[name], rtol=0, atol=2e-5 * 30)


@pytest.mark.parametrize("loop", [True, False])
def test_every_tensor_comes_back(loop):
    w = weights(loop)
    _, params = reference.network(w, TOKENS, heads=2)
    back = reference.to_reference(params)
    assert set(back) == set(w)
    assert all(back[n].tobytes() == w[n].tobytes() and back[n].shape == w[n].shape for n in w)
    own = reference.to_own(params)
    shapes = jax.eval_shape(lambda: params)
    again = reference.from_own(own, shapes)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_both_sides_are_listed():
    w = weights()
    del w["blocks.1.norm1.weight"]
    w["blocks.7.extra"] = np.zeros(2)
    w["output_layer.linear.bias"] = np.zeros(12, np.float32)
    with pytest.raises(UserError) as error:
        model = DiT(tokens=TOKENS, width=24, depth=3, heads=2, cond_width=10)
        reference.from_reference(w, jax.eval_shape(model.init, jax.random.key(0)))
    for text in (
        "missing ['blocks.1.norm1.weight']",
        "surplus ['blocks.7.extra']",
        "(12,)",
        "(13,)",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda w: w.pop("vocab_embed.embedding"), "lacks vocab_embed.embedding"),
        (lambda w: w.update({reference.ROTARY: rotary(5)}), "does not divide the width"),
        (lambda w: w.update({reference.ROTARY: rotary(6, 500.0)}), "other frequencies"),
        (lambda w: w.update({reference.ROTARY: rotary(3)}), "tells 4"),
        (lambda w: w.update({"sigma_map.mlp.2.weight": np.zeros(3)}), "2 dimensions expected"),
    ],
)
def test_sizes_that_cannot_be_told(change, text):
    w = weights()
    change(w)
    with pytest.raises(UserError, match=text):
        reference.sizes(w, heads=2)


def test_heads_without_a_buffer_are_asked_for():
    with pytest.raises(UserError, match="--heads, one of 1, 2, 3, 4, 6, 12"):
        reference.sizes(weights())
    with pytest.raises(UserError, match="5 heads do not divide"):
        reference.sizes(weights(), heads=5)
