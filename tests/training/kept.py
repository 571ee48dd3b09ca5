"""Run in a process with eight devices: python -m tests.training.kept FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import experiment, run

STEPS, MORE = 4, 2
METHOD = "lddm_rollout"
MESHES = {"data2_fsdp2": (4, dict(mesh__data=2, mesh__fsdp=2, training__accumulate=2))}


def main(folder: Path) -> None:
    """Losses and buffer on one device and on many; they go on where one left off."""
    leaves = lambda state: [np.asarray(a) for a in jax.tree.leaves(jax.device_get(state.aux))]
    one = experiment(METHOD, jax.devices()[:1])
    loss, _, state = run(one, STEPS)
    kept = leaves(state)  # the next update takes the state away
    checkpoints = Checkpoints(folder / "one")
    checkpoints.save(state, {"step": STEPS})
    checkpoints.close()
    more, _, last = run(one, STEPS + MORE, begin=state)
    out: dict = {"one": [loss.tolist(), more.tolist()]}
    for name, (count, shape) in MESHES.items():
        built = experiment(METHOD, jax.devices()[:count], **shape)
        found, _, there = run(built, STEPS)
        gaps = [float(np.abs(1.0 * a - b).max()) for a, b in zip(kept, leaves(there))]
        begin, _ = Checkpoints(folder / "one", read_only=True).restore(built.abstract())
        specs = [str(a.sharding.spec) for a in jax.tree.leaves(begin.aux)]
        again, _, _ = run(built, STEPS + MORE, begin=begin)
        out[name] = [found.tolist(), gaps, specs, again.tolist()]
    begin, _ = Checkpoints(folder / "one", read_only=True).restore(one.abstract())
    again, _, end = run(one, STEPS + MORE, begin=begin)
    same = jax.tree.map(np.array_equal, jax.device_get(end), jax.device_get(last))
    out["resumed"] = [again.tolist(), all(jax.tree.leaves(same))]
    (folder / "found.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
