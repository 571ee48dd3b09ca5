"""A moving average in the hosts' memory: the same numbers, kept and gone on with to the bit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ldd_jax.config import refusals
from ldd_jax.core.checks import UserError
from ldd_jax.planning import cost
from ldd_jax.training import sharding
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import BATCH, experiment, run

# In bfloat16 every number is rounded at random, by the number of its parameter.
KINDS = {"float32": {}, "bfloat16": dict(model__param_dtype="bfloat16")}
STEPS = 4


def same(one, two):
    equal = lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)
    jax.tree.map(equal, one, two)


def places(tree):
    return {a.sharding.memory_kind for a in jax.tree.leaves(tree)}


@pytest.fixture(scope="module", params=KINDS)
def both(request):
    """(experiment, final state) with the average on the host and on the device."""
    made = [
        experiment("lddm_m", training__ema_on_host=on, **KINDS[request.param])
        for on in (True, False)
    ]
    return [(built, run(built, STEPS)[2]) for built in made]


@pytest.mark.slow
def test_it_is_that_of_the_device(both):
    (_, host), (_, device) = both
    assert places(host.ema) == {"pinned_host"} and places((host.params, device)) == {"device"}
    same(host, device)
    moved = states.evaluated(host)
    assert places(moved) == {"device"} and states.evaluated(device) is device.ema
    same(moved, device.ema)


@pytest.mark.slow
def test_it_goes_on_to_the_bit(both, tmp_path):
    """Also where the run's place is another one from then on."""
    (built, whole), (other, _) = both
    saver = Checkpoints(tmp_path)
    saver.save(run(built, 2)[2], {"step": 2})
    saver.close()
    reader = Checkpoints(tmp_path, read_only=True)
    for going, place in ((built, "pinned_host"), (other, "device")):
        begun, _ = reader.restore(going.abstract())
        assert int(begun.step) == 2 and places(begun.ema) == {place}
        same(run(going, STEPS, begin=begun)[2], whole)
    like = other.abstract().params
    same(reader.restore_params(like, ema=True)[0], reader.restore(other.abstract())[0].ema)


def test_each_parameter_waits_for_the_one_before():
    """Without that order the whole average is on the device at the end of an update."""
    waits = []
    for on in (True, False):
        built = experiment("mdlm", training__ema_on_host=on)
        like, key = built.abstract(), jax.eval_shape(lambda: jax.random.key(0))
        step = jax.jit(built.update, out_shardings=(states.shardings(like), None))
        text = step.lower(like, cost.arrays(built, BATCH), key).as_text()
        waits.append(text.count("optimization_barrier"))
    assert waits[0] - waits[1] == len(jax.tree.leaves(like.ema)) > 3


def test_a_platform_without_such_memory_is_told(monkeypatch):
    built = experiment("mdlm", training__ema_on_host=True)
    refusals.check_memory(built)
    monkeypatch.setattr(sharding, "HOST", "a drawer")
    refusals.check_memory(experiment("mdlm"))
    with pytest.raises(UserError, match="ema_on_host needs memory of kind 'a drawer'.*device"):
        refusals.check_memory(built)
