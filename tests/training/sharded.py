"""Run in a process with four devices: python -m tests.training.sharded FOLDER METHOD."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import experiment, run

STEPS = 4
MESHES = {
    "data4": dict(mesh__data=4),
    "data2_fsdp2": dict(mesh__data=2, mesh__fsdp=2),
    "data2_tensor2": dict(mesh__data=2, mesh__tensor=2),
}


def meshes(method: str) -> list[str]:
    """Those that divide the vocabulary: 12 states with a mask, 11 without."""
    return [m for m in MESHES if "tensor" not in m or method in ("mdlm", "lddm_m")]


def main(folder: Path, method: str) -> None:
    """Write the losses on one device and on each mesh, and each mesh's checkpoint."""
    assert len(jax.devices()) == 4
    loss, scored, state = run(experiment(method, jax.devices()[:1]), STEPS)
    out = {"one": [loss.tolist(), scored.tolist()]}
    leaves = lambda s: jax.tree.leaves(jax.device_get(s.params))
    whole = leaves(state)
    for name in meshes(method):
        shape = MESHES[name]
        built = experiment(method, jax.devices(), **shape)
        loss, scored, state = run(built, STEPS)
        furthest = max(np.abs(a - b).max() for a, b in zip(whole, leaves(state)))
        out[name] = [loss.tolist(), scored.tolist(), float(furthest)]
        checkpoints = Checkpoints(folder / name)
        checkpoints.save(state, {"step": STEPS})
        checkpoints.close()
        if "fsdp" in name:
            embed = state.params["trunk"]["embed"]["table"]
            out["embed"] = str(embed.sharding.spec)
            # What four devices wrote, another mesh of four reads.
            other = experiment(method, jax.devices(), mesh__data=4)
            like = states.abstract(other.model, other.update.optimizer, other.mesh)
            found, _ = Checkpoints(folder / name, read_only=True).restore(like)
            same = zip(leaves(found), leaves(state))
            out["moved"] = all(np.array_equal(a, b) for a, b in same)
    (folder / "found.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
