"""The update: accumulation is exact, draws are the same whatever the microbatches and tiles."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ldd_jax.objectives import ExampleGate, PseudoContext
from ldd_jax.training.step import Update
from tests.cli.tools import METHODS
from tests.lab import first_params
from tests.training.common import experiment, run

SLOW = [(m, g) for m in METHODS for g in ("", "example") if g == "" or m.startswith("lddm")]
CASES = [pytest.param(*case, marks=pytest.mark.slow, id="-".join(case)) for case in SLOW]


def with_gate(built, gate):
    if not gate:
        return built
    import dataclasses

    context = PseudoContext(p=0.5, gate=ExampleGate())
    return dataclasses.replace(
        built, objective=dataclasses.replace(built.objective, context=context)
    )


@pytest.mark.parametrize(("method", "gate"), CASES)
def test_accumulation_is_exact(method, gate):
    build = lambda n, **more: with_gate(experiment(method, training__accumulate=n, **more), gate)
    same_run(build(1), build(2, objective__tile=16), build(4))


@pytest.mark.slow
def test_accumulation_of_four_is_exact():
    """The fast share of the test above."""
    same_run(*(with_gate(experiment("lddm_m", training__accumulate=n), "example") for n in (1, 4)))


def same_run(first, *others):
    loss, scored, state = run(first, 3)
    assert np.all(loss > 0.5) and len(set(loss)) == 3
    for built in others:
        loss_n, scored_n, state_n = run(built, 3)
        np.testing.assert_array_equal(scored_n, scored)  # exactly the same draws
        np.testing.assert_allclose(loss_n, loss, rtol=0, atol=1e-6)
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        jax.tree.map(close, jax.device_get(state_n.params), jax.device_get(state.params))
        jax.tree.map(close, jax.device_get(state_n.ema), jax.device_get(state.ema))


@pytest.mark.slow
def test_loss_of_an_example_does_not_depend_on_its_microbatch():
    """Per example."""
    built = [experiment("lddm_m", training__accumulate=n) for n in (1, 4)]
    from ldd_jax.core.types import as_batch
    from tests.training.common import stream

    arrays = next(stream(1))
    params = first_params(built[0].model, jax.random.key(3))
    losses = []
    for e in built:
        run_one = jax.jit(lambda p, a, k, e=e: e.update.gradients(p, as_batch(a), k))
        loss, _ = run_one(params, arrays, jax.random.key(5))
        losses.append(np.asarray(loss.metrics["loss_B"]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert len(np.unique(losses[0])) > 4  # some have nothing masked


@pytest.mark.parametrize(("accumulate", "groups"), [(2, 1), (4, 1), (2, 2), (2, 4), (4, 2)])
def test_losses_come_in_the_order_of_the_rows(accumulate, groups):
    """Whatever the microbatches and shards: a row that is not finite is named by its number."""
    import dataclasses

    from ldd_jax.core.types import Batch, Cond, Loss

    @dataclasses.dataclass(frozen=True)
    class Names:
        def __call__(self, denoiser, batch, key):
            del denoiser, key
            loss_B = batch.index.astype("float32")
            return Loss(loss_B.sum(), {"loss_B": loss_B, "scored": loss_B.sum().astype("int32")})

    rows = np.arange(16)
    grid = np.zeros((16, 2), np.int32)
    batch = Batch(grid, grid > 0, grid + 1.0, Cond(), rows, total=16, norm=1.0)
    built = dataclasses.replace(
        experiment("mdlm").update, objective=Names(), accumulate=accumulate, groups=groups
    )
    loss, _ = jax.jit(lambda p, b: built.gradients(p, b, None))({"w": np.zeros(1)}, batch)
    assert loss.metrics["loss_B"].tolist() == rows.tolist()


@pytest.mark.slow
def test_weights_are_relative_and_padding_has_none():
    """A common factor cancels in the norm, and the norm counts real tokens."""
    from ldd_jax.core.types import as_batch
    from tests.training.common import stream

    built = experiment("udlm")
    arrays = next(stream(1))
    assert arrays["keep"].any()
    params = first_params(built.model, jax.random.key(3))
    # A head that is not zero, so that the loss depends on the features.
    params["head"]["kernel"] = jax.random.normal(jax.random.key(0), params["head"]["kernel"].shape)

    @jax.jit
    def loss(weight):
        batch = as_batch({**arrays, "weight": weight})
        return built.update.gradients(params, batch, jax.random.key(5))

    one, g1 = loss(arrays["weight"])
    two, g2 = loss(2 * arrays["weight"])
    np.testing.assert_allclose(one.total, two.total, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), g1, g2)
    assert float(as_batch(arrays).norm) == (~arrays["keep"]).sum()


def test_metrics_and_step_count():
    built = experiment("mdlm")
    assert isinstance(built.update, Update)
    loss, scored, state = run(built, 4)
    assert int(state.step) == 4 and np.all((scored > 0) & (scored < 1))


def test_average_differs_from_the_parameters_and_follows_them():
    """After one update ema = p0 + (1 - 2/11)(p1 - p0)."""
    built = experiment("mdlm")
    from ldd_jax.training import state as states

    first = states.initial(built.model, built.update.optimizer, built.mesh, built.key(0))
    p0 = jax.device_get(first.params)
    _, _, state = run(built, 1)
    p1, ema = jax.device_get((state.params, state.ema))
    want = jax.tree.map(lambda a, b: a + 9 / 11 * (b - a), p0, p1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ema, want)
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(p0), jax.tree.leaves(p1))]
    assert max(moved) > 1e-4
