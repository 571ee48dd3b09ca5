"""GPT-2's 50,258 states on a tensor axis of 4 and 8; checkpoints with other zeros behind them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.training import shapes
from ldd_jax.training.checkpoints import Checkpoints
from tests import children
from tests.training.common import experiment


@pytest.mark.slow
def test_fifty_thousand_states_on_eight_devices(tmp_path):
    """From a checkpoint of one device, without padding, they go on as that device does."""
    found = children.found("tests.training.padded", tmp_path)
    assert found["states"] == 50_258
    for name in ("tensor4", "tensor8"):
        there = found[name]
        assert there["rows"] == 50_304 and "'tensor'" in there["spec"]
        np.testing.assert_allclose(there["loss"], found["one"], rtol=0, atol=2e-5)
        assert there["furthest"] < 1e-4


@pytest.mark.slow
def test_a_checkpoint_is_read_with_other_zeros_and_nothing_else(tmp_path):
    """12 states: written with 1 and 5 as multiple, read with others; a width is refused."""
    for multiple, rows in ((1, 12), (5, 15)):
        built = experiment("mdlm", model__vocab_multiple=multiple)
        state = built.initial()
        saver = Checkpoints(tmp_path / str(multiple))
        saver.save(state, {"step": 0, "config": built.config.to_dict()})
        saver.close()
        assert state.params["head"]["bias"].shape == (rows,)
    for there, here in ((1, 5), (5, 1), (5, 8)):
        built = experiment("mdlm", model__vocab_multiple=here)
        reader = Checkpoints(tmp_path / str(there), read_only=True)
        found, _ = reader.restore(built.abstract(), states=12)
        same = lambda a, b: np.testing.assert_array_equal(a, b)
        jax.tree.map(same, jax.device_get(found), jax.device_get(built.initial()))
        params, _ = reader.restore_params(built.abstract().params, ema=True, states=12)
        jax.tree.map(same, jax.device_get(params), jax.device_get(found.ema))
        with pytest.raises(UserError, match="does not fit the config"):
            reader.restore(built.abstract())  # nobody said that there is a vocabulary
    other = experiment("mdlm", model__width=32, model__vocab_multiple=5)
    with pytest.raises(UserError, match="does not fit the config"):
        Checkpoints(tmp_path / "1", read_only=True).restore(other.abstract(), states=12)


def before(tree):
    """Arrays of queries, keys and values as they were: the outputs of a layer on one axis."""
    joined = lambda a: a.reshape(shapes._joined(a.shape))
    return jax.tree.map(joined, tree)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_a_checkpoint_with_heads_on_one_axis_goes_on(optimizer, tmp_path):
    """Parameters, average and optimizer; a kernel of another size is refused."""
    built = experiment("mdlm", optim=optimizer, model__heads=2)
    drawn = iter(range(10**6))
    live = lambda a: a + jax.random.normal(jax.random.key(next(drawn)), a.shape).astype(a.dtype)
    state = jax.tree.map(live, built.initial()).replace(step=jax.numpy.zeros((), "int32"))
    old = before(state)
    assert old.params["trunk"]["blocks"]["qkv"]["kernel"].shape == (1, 16, 48)
    saver = Checkpoints(tmp_path)
    saver.save(old, {"step": 0, "config": built.config.to_dict()})
    saver.close()
    reader = Checkpoints(tmp_path, read_only=True)
    found, _ = reader.restore(built.abstract(), states=12)
    same = lambda a, b: np.testing.assert_array_equal(a, b, strict=True)
    jax.tree.map(same, jax.device_get(found), jax.device_get(state))
    params, _ = reader.restore_params(built.abstract().params, ema=True)
    jax.tree.map(same, jax.device_get(params), jax.device_get(state.ema))
    with pytest.raises(UserError, match="does not fit the config"):
        reader.restore(experiment("mdlm", optim=optimizer, model__width=32).abstract(), states=12)


def test_which_shapes_may_become_which():
    want = jax.ShapeDtypeStruct((4, 20), "float32")
    shape = lambda have, like=want, **k: shapes.as_stored({"a": like}, {"a": have}, **k)["a"].shape
    states = dict(states=18, rows=19)
    assert shape((4, 19), **states) == (4, 19)
    assert shape((4, 18), **states) == shape((5, 19), **states) == (4, 20)  # are refused later
    assert shape((4, 19), states=0, rows=19) == (4, 20)
    heads = jax.ShapeDtypeStruct((2, 4, 3, 2, 5), "float32")
    assert shape((2, 4, 30), heads, **states) == (2, 4, 30)
    assert shape((2, 30, 4), heads, **states) == heads.shape
    assert shape((19,), jax.ShapeDtypeStruct((17,), "float32"), **states) == (17,)


def test_rows_of_a_record():
    said = lambda multiple: {"config": {"model": {"vocab_multiple": multiple}}}
    assert shapes.rows_of(said(8), 12) == 16
    for strange in (said(0), said("8"), said(True), {}, {"config": 3}, {"config": {"model": []}}):
        assert shapes.rows_of(strange, 12) == 12
