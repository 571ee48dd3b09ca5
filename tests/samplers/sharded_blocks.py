"""Run in a process with eight devices: python -m tests.samplers.sharded_blocks FOLDER."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.inference.generate import Sampler
from ldd_jax.samplers import Dual, LowEntropy
from tests.training.common import LENGTH, experiment

MESHES = {
    "one": (1, {}),
    "data8": (8, dict(mesh__data=8)),
    "data2_fsdp2": (4, dict(mesh__data=2, mesh__fsdp=2)),
}
RUNS = {
    "cached": ("lddm_block", dict(model__block=4), {}),
    "dual": ("mdlm", {}, dict(blocks=Dual(size=4, refresh=2), stop=LowEntropy(threshold=1.5))),
    "ar": ("ar", {}, {}),
}


def samples(method: str, fields: dict, settings: dict, place: tuple) -> list:
    """Tokens and calls of eight rows, whose first tokens are given."""
    count, shape = place
    built = experiment(method, jax.devices()[:count], **fields, **shape)
    sampling = dataclasses.replace(built.sampling, batch_size=8, **settings)
    rng = np.random.default_rng(0)
    noisy = lambda a: a + rng.normal(0, 0.3, a.shape).astype(a.dtype)
    like = built.initial().params
    params = jax.tree.map(lambda a: jax.device_put(noisy(np.asarray(a)), a.sharding), like)
    tokens, fixed = np.full(LENGTH, 3), np.arange(LENGTH) < 5
    state, _ = Sampler.make(built, sampling, LENGTH).batch(params, 1, 0, tokens, fixed, 3)
    return [np.asarray(state.z).tolist(), np.asarray(state.calls).tolist()]


def main(path: Path) -> None:
    """Write what every mesh draws."""
    assert len(jax.devices()) == 8
    found = {
        name: {mesh: samples(*run, place) for mesh, place in MESHES.items()}
        for name, run in RUNS.items()
    }
    path.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "found.json")
