"""Run in a process with eight devices: python -m tests.training.sharded FOLDER METHOD."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.inference import carried, own_law
from ldd_jax.training import sharding
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import experiment, run, stream

STEPS, MORE = 4, 2
MESHES = {
    "data2": (2, dict(mesh__data=2)),
    "data4": (4, dict(mesh__data=4)),
    "data2_fsdp2": (4, dict(mesh__data=2, mesh__fsdp=2, model__chunks=2)),
    "data2_tensor2": (4, dict(mesh__data=2, mesh__tensor=2)),
    "data8": (8, dict(mesh__data=8)),
    "data2_fsdp4": (8, dict(mesh__data=2, mesh__fsdp=4)),
    "sequence2": (2, dict(mesh__data=1, mesh__sequence=2, objective__tile=5)),
    "data2_sequence4": (8, dict(mesh__data=2, mesh__sequence=4, objective__tile=4)),
}
CARRIED = ("data4", "data2_fsdp2", "data2_sequence4")
# Meshes on which a run goes on from what eight devices wrote: devices and axes.
NEXT = {"one": (1, {}), "four": (4, dict(mesh__data=4)), "2x4": MESHES["data2_fsdp4"]}


def meshes(method: str) -> list[str]:
    """Those that divide the vocabulary: 12 states with a mask, 11 without."""
    return [m for m in MESHES if "tensor" not in m or method in ("mdlm", "lddm_m")]


def on(method: str, place: tuple):
    """The experiment on the first so many devices."""
    count, shape = place
    return experiment(method, jax.devices()[:count], **shape)


def carried_nats(built) -> list[float]:
    """What rows cost the sampler that carries h, on one path."""
    sampling = own_law.settings(built, steps=3)
    state = states.initial(built.model, built.update.optimizer, built.mesh, built.key(0))
    arrays = sharding.put(built.mesh, next(iter(stream(1))))
    found = carried.program(built, sampling)(state.params, arrays, built.key(2), 3)
    return np.asarray(found.nats).tolist()


def main(folder: Path, method: str) -> None:
    """Write the losses on one device and on each mesh, and each mesh's checkpoint."""
    assert len(jax.devices()) == 8
    loss, scored, state = run(experiment(method, jax.devices()[:1]), STEPS + MORE)
    out = {"one": [loss.tolist(), scored.tolist()]}
    loss, scored, state = run(experiment(method, jax.devices()[:1]), STEPS)
    leaves = lambda s: jax.tree.leaves(jax.device_get(s.params))
    whole = leaves(state)
    for name in meshes(method):
        loss, scored, state = run(on(method, MESHES[name]), STEPS)
        furthest = max(np.abs(a - b).max() for a, b in zip(whole, leaves(state)))
        out[name] = [loss.tolist(), scored.tolist(), float(furthest)]
        checkpoints = Checkpoints(folder / name)
        checkpoints.save(state, {"step": STEPS})
        checkpoints.close()
        if "fsdp" in name:
            embed = state.params["trunk"]["embed"]["table"]
            out["embed"] = str(embed.sharding.spec)
    places = {"one": (1, {})} | {name: MESHES[name] for name in CARRIED}
    out["carried"] = {name: carried_nats(on(method, place)) for name, place in places.items()}
    # What eight devices wrote goes on elsewhere, with the same next examples.
    out["continued"] = {}
    for name, place in NEXT.items():
        built = on(method, place)
        like = states.abstract(built.model, built.update.optimizer, built.mesh)
        found, _ = Checkpoints(folder / "data8", read_only=True).restore(like)
        loss, scored, _ = run(built, STEPS + MORE, begin=found)
        out["continued"][name] = [loss.tolist(), scored.tolist()]
    (folder / "found.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
