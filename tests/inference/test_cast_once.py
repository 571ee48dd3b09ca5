"""A network of bfloat16 reads parameters in the sampler's loop that were cast before it."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from ldd_jax.config import experiment, stored
from ldd_jax.core.casts import kind
from ldd_jax.data import Characters
from ldd_jax.inference import programs
from tests.inference.test_written_before import waves

KEPT = json.loads((Path(__file__).parent / "written_before.json").read_text())["masked"]


def whiles(jaxpr):
    """All loops of a program."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "while":
            yield eqn
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr") or hasattr(v, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from whiles(inner)


def casts_inside(jaxpr):
    """Of what a loop reads from outside, shapes of what it only casts."""
    found = []
    for eqn in whiles(jaxpr):
        body = eqn.params["body_jaxpr"].jaxpr
        outside = body.invars[: eqn.params["body_nconsts"]]
        found += [var.aval.shape for var in outside if kind(body, var) is not None]
    return found


@pytest.mark.parametrize(
    "tied",
    [pytest.param(False, id="dit"), pytest.param(True, id="llama", marks=pytest.mark.slow)],
)
def test_no_parameter_is_cast_in_the_loop_and_tokens_are_the_same(tied, monkeypatch):
    config = ConfigDict(KEPT["config"])
    config.model.dtype = "bfloat16"
    if tied:
        own = dict(width=16, depth=2, heads=2, dtype="bfloat16", tied=True, latent=True)
        config.model = dict(name="llama", **own)
    config = stored.as_config(config.lock(), "the file")
    built = experiment.build(config, Characters().fit(lambda: ["abcdefghij"]))
    params = waves(jax.eval_shape(built.model.init, jax.random.key(0)))
    row = np.zeros((2, 8), np.int32)
    args = (np.uint32(3), np.arange(2, dtype=np.uint32), row[:, 0], row, row > 0, np.int32(4))
    found = []
    for once in (True, False):
        monkeypatch.setattr(programs, "is_narrow", lambda model, once=once: once)
        run = programs.program(built, built.sampling, 8)
        inside = casts_inside(jax.make_jaxpr(run)(params, *args).jaxpr)
        assert bool(inside) != once, inside
        found.append(np.asarray(jax.jit(run)(params, *args)[0].z))
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0])) > 2
