"""Parameters and moments in bfloat16, rounded at random; runs without a moving average."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.objectives.base import with_z
from ldd_jax.training import rounding
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import experiment, run, stream


def test_a_number_between_two_becomes_either_and_is_right_on_average():
    """1 + 2^-10 lies an eighth of the way from 1 to the next bfloat16, 1 + 2^-7."""
    x = jnp.full(40_000, 1 + 2**-10, jnp.float32)
    found = np.asarray(rounding.at_random(x, jax.random.key(0)), np.float64)
    assert set(found) == {1.0, 1 + 2**-7}
    share = (found > 1).mean()
    assert abs(share - 1 / 8) < 5 * np.sqrt(1 / 8 * 7 / 8 / x.size)
    low = np.asarray(rounding.at_random(-x, jax.random.key(1)), np.float64)
    assert set(low) == {-1.0, -1 - 2**-7}


def test_what_bfloat16_holds_and_what_is_no_number_stay():
    x = jnp.asarray([0.0, -1.5, 3e38, np.inf, -np.inf, np.nan], jnp.float32)
    x = x.at[2].set(x[2].astype(jnp.bfloat16).astype(jnp.float32))
    found = rounding.at_random(x, jax.random.key(0)).astype(jnp.float32)
    np.testing.assert_array_equal(found, x)


def test_only_what_is_stored_narrow_is_rounded():
    like = {"a": jnp.zeros(3, jnp.bfloat16), "b": jnp.zeros(3), "n": jnp.zeros((), jnp.int32)}
    wide = rounding.wide(like)
    assert [str(a.dtype) for a in jax.tree.leaves(wide)] == ["float32", "float32", "int32"]
    new = jax.tree.map(lambda a: a + 1, wide)
    back = rounding.narrow(new, like, jax.random.key(0))
    assert [a.dtype for a in jax.tree.leaves(back)] == [a.dtype for a in jax.tree.leaves(like)]
    assert back["b"] is new["b"] and back["n"] is new["n"]


NARROW = dict(
    model__param_dtype="bfloat16",
    optim__variances="bfloat16",
    optim__moments="bfloat16",
    training__ema_decay=0.0,
)


@pytest.fixture(scope="module")
def narrow():
    """(experiment, losses, state) of a run in half the memory, and losses of a plain one."""
    built = experiment("lddm_m", **NARROW)
    loss, _, state = run(built, 6)
    plain, _, _ = run(experiment("lddm_m", training__ema_decay=0.0), 6)
    return built, loss, state, plain


@pytest.mark.slow
def test_half_the_memory_trains_alike(narrow):
    built, loss, state, plain = narrow
    np.testing.assert_allclose(loss, plain, rtol=0.02)
    assert state.ema is None and states.evaluated(state) is state.params
    kinds = {a.dtype for a in jax.tree.leaves((state.params, state.opt_state)) if a.ndim}
    assert kinds == {jnp.dtype(jnp.bfloat16)}
    # A rate of 1e-3 beside a norm's scale of 1, where bfloat16 has steps of 2^-7.
    scale = np.asarray(state.params["trunk"]["final_norm"]["norm"]["scale"], np.float32)
    assert (scale != 1).any()


@pytest.mark.slow
def test_a_checkpoint_without_an_average(narrow, tmp_path):
    """It is a third smaller than with one; its parameters stand in the place of the average."""
    built, _, state, _ = narrow
    saver = Checkpoints(tmp_path)
    saver.save(state, {"step": 6})
    saver.close()
    assert not (tmp_path / "checkpoints" / "6" / "ema").exists()
    reader, like = Checkpoints(tmp_path, read_only=True), built.abstract()
    found, _ = reader.restore(like)
    same = lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    jax.tree.map(same, found, state)
    params, _ = reader.restore_params(like.params, ema=True)
    jax.tree.map(same, params, state.params)


def test_a_z_loss_is_the_square_of_the_log_sum():
    """The head starts at zero, so that each of 12 logits is 0; no bound has it."""
    plain, held = (experiment("mdlm", objective__z_loss=z) for z in (0.0, 0.01))
    batch = {k: jnp.asarray(v) for k, v in next(iter(stream(1))).items()}

    def total(built, params):
        _, batch_, key = built.update.begin(
            states.TrainState(jnp.zeros((), jnp.int32), params, None, ()), batch, built.key(1)
        )
        found = built.objective(built.model.bind(params), batch_, key)
        return found.total, found.metrics["scored"] / batch_.norm

    measure = lambda key: [total(b, plain.model.init(key)) for b in (plain, held)]
    (one, share), (other, _) = jax.jit(measure)(jax.random.key(0))
    np.testing.assert_allclose(other - one, 0.01 * np.log(12) ** 2 * share, rtol=1e-4)
    assert held.objective.as_bound(1).z_loss == 0
    causal = experiment("ar", objective__z_loss=0.01)
    assert causal.objective.z_loss and not causal.objective.as_bound(1).z_loss
    loss, logits = jnp.ones(2), jnp.log(jnp.asarray([[1.0, 2, 3], [0.2, 0.3, 0.5]]))
    np.testing.assert_allclose(with_z(loss, logits, 0.5), [1 + 0.5 * np.log(6) ** 2, 1], atol=1e-6)
    with pytest.raises(ValueError, match="z_loss is 1.0"):
        type(held.objective)(z_loss=1.0)
