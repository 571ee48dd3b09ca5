"""Adapters: the same function at first, merged in the end, and nothing else is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import GPT2, Llama
from ldd_jax.denoisers.linears import merged
from tests.lab import first_params, jit, live_params

SIZES = dict(tokens=TokenSpace(size=7, mask=6), width=16, depth=2, heads=4, lora_rank=2)
MODELS = {
    "llama": Llama(**SIZES, kv_heads=2, qkv_bias=True, lora_targets=("q", "v"), lora_alpha=6.0),
    "gpt2": GPT2(**SIZES, positions=8),
}
Z = jax.random.randint(jax.random.key(0), (2, 8), 0, 7)


def features(model, params):
    return jit(lambda p: model.bind(p).trunk(Z, Cond()).features)(params)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_merged_is_base_and_adapter(name, x64):
    model = dataclasses.replace(MODELS[name], dtype="float64")
    base = dataclasses.replace(model, lora_rank=0)
    fresh = first_params(model)
    adapted = [n for n in fresh["trunk"]["blocks"] if "lora_a" in fresh["trunk"]["blocks"][n]]
    assert sorted(adapted) == sorted(model.lora_targets or model.linears)
    np.testing.assert_array_equal(
        features(model, fresh), features(base, merged(fresh, model.adapter))
    )
    live = live_params(model, scale=0.1)
    found = merged(live, model.adapter)
    assert jax.tree.structure(found) == jax.tree.structure(first_params(base))
    expected = features(base, found)
    np.testing.assert_allclose(features(model, live), expected, rtol=0, atol=1e-6)
    assert np.abs(expected - features(base, merged(fresh, model.adapter))).max() > 1e-2
    assert model.adapter.factor == (3.0 if name == "llama" else 1.0)
    axes = model.axes()["trunk"]["blocks"]["q" if name == "llama" else "qkv"]
    outputs = ("heads",) if name == "llama" else (None, "heads", None)
    assert axes["lora_a"] == ("layer", "width", "latent")
    assert axes["lora_b"] == ("layer", "latent", *outputs)


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="lora_targets: 'query'"):
        Llama(**SIZES, lora_targets=("query",))


@pytest.mark.slow
def test_only_what_is_trained_moves_and_is_kept_by_the_optimizer():
    from tests.training import adapted
    from tests.training.common import run

    built = adapted.experiment((1, dict(data=1), 1), lora_rank=2)
    loss, _, state = run(built, 3)
    first = jax.device_get(built.initial().params)
    trained = built.optim.trained(first)
    pairs = zip(*map(jax.tree.leaves, (trained, first, state.params, state.ema)), strict=True)
    for on, old, new, ema in pairs:
        assert (old.tobytes() == np.asarray(new).tobytes()) == (not on)
        assert on or old.tobytes() == np.asarray(ema).tobytes()
    names = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, on in jax.tree_util.tree_leaves_with_path(trained)
        if on
    ]
    assert len(names) == 16 and all("lora_" in n or "latent_norm" in n for n in names)
    size = lambda tree: sum(a.nbytes for a in jax.tree.leaves(tree))
    whole = adapted.experiment((1, dict(data=1), 1)).abstract().opt_state
    bytes_of = lambda tree: sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))
    assert size(state.opt_state) * 2 < bytes_of(whole)
    assert np.isfinite(loss).all() and len(set(loss.tolist())) == 3


def test_a_pattern_of_no_parameter_is_refused():
    from ldd_jax.training.optimizers import AdamW

    with pytest.raises(UserError, match="no parameter is named like"):
        AdamW(trainable=("*head*", "*nose*")).make().init({"head": jnp.zeros(1)})
