"""A config and parameters as an earlier version wrote them give the samples that they gave."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from ldd_jax.config import experiment, stored
from ldd_jax.data import Characters
from ldd_jax.denoisers.linears import in_files
from ldd_jax.inference.generate import Sampler

KEPT = json.loads((Path(__file__).parent / "written_before.json").read_text())


def named(tree):
    """Path -> leaf, as a checkpoint names them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(k.key for k in path): leaf for path, leaf in leaves}


def waves(tree):
    """Parameters of any shapes, the same on every machine."""
    flat, shape = jax.tree.flatten(tree)
    wave = lambda i, a: (0.5 * np.sin(0.7 * np.arange(a.size) + i)).reshape(a.shape)
    made = [wave(i, a).astype(np.float32) for i, a in enumerate(flat)]
    return jax.tree.unflatten(shape, made)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(KEPT))
def test_the_same_parameters_and_the_same_tokens(name):
    kept = KEPT[name]
    config = stored.as_config(ConfigDict(kept["config"]).lock(), "the file")
    built = experiment.build(config, Characters().fit(lambda: ["abcdefghij"]))
    shapes = jax.eval_shape(built.model.init, jax.random.key(0))
    there = {n: list(in_files(tuple(n.split("/")), a.shape)) for n, a in named(shapes).items()}
    assert there == kept["parameters"]
    sampler = Sampler.make(built, built.sampling, config.data.length)
    nothing = np.zeros(config.data.length, bool)
    state, _ = sampler.batch(waves(shapes), 3, 0, nothing, nothing, config.sampling.num_steps)
    assert np.asarray(state.z).tolist() == kept["tokens"]
    assert np.asarray(state.calls).tolist() == kept["calls"]
