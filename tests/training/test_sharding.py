"""Many devices do what one does; checkpoints move between them; misfits are told in words."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from ldd_jax.config.refusals import check_batch
from ldd_jax.core.checks import UserError
from ldd_jax.training import sharding
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.whole import FORMAT
from tests import children
from tests.training import sharded
from tests.training.common import experiment, run


@pytest.fixture(scope="module", params=["lddm_m", "udlm"])
def eight(request, tmp_path_factory):
    """(method, folder, losses) of a process with eight CPU devices."""
    folder = tmp_path_factory.mktemp("sharded")
    return request.param, folder, children.found("tests.training.sharded", folder, request.param)


@pytest.mark.slow
def test_four_and_eight_devices_do_what_one_does(eight):
    method, folder, found = eight
    loss, scored = found["one"]
    for name in sharded.meshes(method):
        loss_n, scored_n, furthest = found[name]
        assert scored_n == scored[: sharded.STEPS]  # exactly the same draws
        np.testing.assert_allclose(loss_n, loss[: sharded.STEPS], rtol=0, atol=1e-5)
        assert furthest < 1e-4
    assert "fsdp" in found["embed"]


@pytest.mark.slow
def test_the_carried_bound_is_the_same_on_many_devices(eight):
    """Rows have the draws of their own index, wherever they lie."""
    _, _, found = eight
    one = np.array(found["carried"]["one"])
    assert (one > 5).all() and np.std(one) > 0.1
    for name in sharded.CARRIED:
        np.testing.assert_allclose(found["carried"][name], one, rtol=1e-5)


@pytest.mark.slow
def test_what_eight_devices_wrote_goes_on_elsewhere(eight):
    """With the next examples, on 1, 4 and 2 x 4 devices."""
    _, _, found = eight
    loss, scored = found["one"]
    assert set(found["continued"]) == {"one", "four", "2x4"}
    for loss_n, scored_n in found["continued"].values():
        assert scored_n == scored[sharded.STEPS :]
        np.testing.assert_allclose(loss_n, loss[sharded.STEPS :], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_of_many_devices_restores_on_one(eight):
    """And holds what this process computes by itself."""
    method, folder, _ = eight
    built = experiment(method)
    _, _, state = run(built, sharded.STEPS)
    like = states.abstract(built.model, built.update.optimizer, built.mesh)
    for name in sharded.meshes(method):
        found, meta = Checkpoints(folder / name, read_only=True).restore(like)
        assert int(found.step) == meta["step"] == sharded.STEPS
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
        for part in ("params", "ema"):
            mine, theirs = (jax.device_get(getattr(s, part)) for s in (state, found))
            jax.tree.map(close, mine, theirs)


def mesh(**shape):
    sizes = [shape.get(a, 1) for a in sharding.AXES]
    return AbstractMesh(tuple(sizes), sharding.AXES)


def test_every_parameter_has_logical_axes_for_every_dimension():
    for method in ("mdlm", "lddm_u"):
        built = experiment(method)
        params = jax.eval_shape(built.model.init, jax.random.key(0))
        axes = built.model.axes()
        match = jax.tree.map(
            lambda a, p: len(a) == p.ndim, axes, params, is_leaf=lambda a: isinstance(a, tuple)
        )
        assert all(jax.tree.leaves(match))


def test_what_a_mesh_cannot_divide_is_told_in_words():
    built = experiment("mdlm")
    params = jax.eval_shape(built.model.init, jax.random.key(0))
    sharding.check(mesh(fsdp=4), built.model.axes(), params)
    with pytest.raises(UserError, match=r"16 is not a multiple of mesh axis 'fsdp' \(3\)"):
        sharding.check(mesh(fsdp=3), built.model.axes(), params)
    with pytest.raises(UserError, match=r"12 is not a multiple of mesh axis 'tensor' \(5\)"):
        sharding.check(mesh(tensor=5), built.model.axes(), params)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (dict(data=3), "does not divide 8 devices"),
        (dict(data=-1, fsdp=-1), "does not divide 8 devices"),
        (dict(data=10**9), "does not divide 8 devices"),
        (dict(data=2, fsdp=2), "4 places for 8 devices"),
    ],
)
def test_mesh_shapes(shape, message):
    devices = [jax.devices()[0]] * 8
    with pytest.raises(UserError, match=message):
        sharding.MeshShape(**shape).make(devices)
    good = sharding.MeshShape(fsdp=2, tensor=2).make(devices)
    assert dict(good.shape) == {"data": 2, "fsdp": 2, "tensor": 2, "sequence": 1}
    assert sharding.shards(good) == 4
    with pytest.raises(ValueError, match="data is 0; -1 or at least 1 devices"):
        sharding.MeshShape(data=0)


def test_batches_are_a_multiple_of_shards_and_accumulation():
    with pytest.raises(UserError, match="not a multiple of 3"):
        check_batch(experiment("mdlm", [jax.devices()[0]] * 3, mesh__data=3))
    with pytest.raises(UserError, match=r"data shards 4 x accumulate 4"):
        four = [jax.devices()[0]] * 4
        check_batch(experiment("mdlm", four, mesh__data=4, training__accumulate=4))


def test_axes_without_a_name_are_whole_and_unknown_names_are_told():
    assert sharding.spec((None, "vocabulary")) == sharding.spec(("layer", "vocabulary"))
    with pytest.raises(UserError, match="axes name 'vocabluary'; .*did you mean 'vocabulary'"):
        sharding.spec(("vocabluary",))


def test_a_mesh_axis_is_used_once():
    assert sharding.spec(("vocabulary", "width")) == jax.P("tensor", "fsdp")
    assert sharding.spec(("width", "width")) == jax.P("fsdp", None)
    assert sharding.spec(("layer", "heads", "width")) == jax.P(None, "tensor", "fsdp")


@pytest.mark.slow
def test_checkpoint_of_another_shape_is_refused(tmp_path):
    built, other = experiment("mdlm"), experiment("mdlm", model__width=32)
    state = states.initial(built.model, built.update.optimizer, built.mesh, built.key(0))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"step": 0, "note": "x"})
    checkpoints.close()
    reader = Checkpoints(tmp_path, read_only=True)
    like = states.abstract(other.model, other.update.optimizer, other.mesh)
    with pytest.raises(UserError, match="does not fit the config"):
        reader.restore(like)
    with pytest.raises(UserError, match="no checkpoint 3; there are: 0"):
        reader.restore_params(like.params, ema=True, step=3)
    mine = states.abstract(built.model, built.update.optimizer, built.mesh)
    found, meta = reader.restore(mine)
    assert meta["note"] == "x" and meta["format"] == FORMAT
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(state))
    assert jnp.asarray(found.step).dtype == jnp.int32
