"""Run in a process with eight devices: python -m tests.training.rolled FOLDER METHOD."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.config.lattices import lattice
from ldd_jax.config.recipes import arguments
from ldd_jax.core import registry
from ldd_jax.data import batches
from ldd_jax.targets import Ising
from ldd_jax.training import sharding
from ldd_jax.training.checkpoints import Checkpoints

STEPS, MORE = 4, 2
MESHES = {"data4_fsdp2": (8, dict(data=4, fsdp=2)), "accumulate": (1, dict(data=1))}


def experiment(method: str, place: tuple, accumulate: int = 1):
    """A tiny sampler of a 2 x 2 lattice on so many devices."""
    count, shape = place
    chosen = arguments("", method=method, size="tiny", side="2", beta="0.28", warmup="0.1")
    config = lattice(chosen, Ising)
    changes = dict(width=16, depth=1), dict(batch_size=16, accumulate=accumulate), shape
    for name, fields in zip(("model", "training", "mesh"), changes):
        config[name].update(fields)
    config.optim.decay = "constant"
    tokenizer = registry.build("data", config.data).load().tokenizer
    mesh = registry.build("mesh", config.mesh).make(jax.devices()[:count])
    return experiments.build(config, tokenizer, mesh)


def run(built, step, last: int, begin=None):
    """(losses, last state) of updates up to `last`, as the loop does them."""
    rows = registry.build("data", built.config.data).load().train
    state = begin or built.initial()
    stream = batches(rows, batch_size=16, seed=0, threads=0)
    stream.set_state({"next_step": int(state.step)})
    losses = []
    for _ in range(int(state.step), last):
        arrays = sharding.put(built.mesh, next(stream))
        state, metrics = step(state, arrays, sharding.everywhere(built.mesh, built.key(1)))
        losses.append(float(metrics["loss"]))
    return losses, state


def main(folder: Path, method: str) -> None:
    """Losses and the buffer on one device and on many; eight go on where one left off."""
    leaves = lambda tree: jax.tree.leaves(jax.device_get(tree))
    update = lambda built: experiments.step_function(built, built.abstract())
    one = experiment(method, (1, dict(data=1)))
    step = update(one)
    losses, state = run(one, step, STEPS)
    checkpoints = Checkpoints(folder / "one")
    checkpoints.save(state, {"step": STEPS})
    checkpoints.close()
    more, state = run(one, step, STEPS + MORE, state)
    out = {"one": [*losses, *more]}
    for name, place in MESHES.items():
        built = experiment(method, place, 4 if name == "accumulate" else 1)
        step = update(built)
        found, there = run(built, step, STEPS + MORE)
        pairs = zip(leaves(state.params), leaves(there.params))
        same = [bool(np.array_equal(a, b)) for a, b in zip(leaves(state.aux), leaves(there.aux))]
        out[name] = [found, max(float(np.abs(a - b).max()) for a, b in pairs), same[:1]]
        begin, _ = Checkpoints(folder / "one", read_only=True).restore(built.abstract())
        out["spec"] = [str(a.sharding.spec) for a in jax.tree.leaves(begin.aux)]
        out[name].append(run(built, step, STEPS + MORE, begin)[0])
    (folder / "found.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
