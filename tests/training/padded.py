"""Run in a process with eight devices: python -m tests.training.padded FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.denoisers import padding
from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import experiment, run

STEPS, MORE = 1, 2
GPT2 = "".join(chr(0x10000 + i) for i in range(50_256))  # and one for unknown characters
MESHES = {"tensor4": dict(mesh__data=2, mesh__tensor=4), "tensor8": dict(mesh__tensor=8)}


def main(folder: Path) -> None:
    """Losses after a checkpoint, plain on one device and padded on many."""
    small = dict(alphabet=GPT2, model__width=16, model__heads=8)
    one = experiment("lddm_m", jax.devices()[:1], **small)
    out = {"states": one.tokens.size}
    _, _, state = run(one, STEPS)
    saver = Checkpoints(folder)
    saver.save(state, {"step": STEPS, "config": one.config.to_dict()})
    saver.close()
    loss, _, state = run(one, STEPS + MORE, begin=state)
    out["one"] = loss.tolist()
    plain = jax.device_get(state.params)
    for name, shape in MESHES.items():
        built = experiment("lddm_m", **small, model__vocab_multiple=128, **shape)
        like, size = built.abstract(), built.tokens.size
        begin, _ = Checkpoints(folder, read_only=True).restore(like, states=size)
        table = begin.params["trunk"]["embed"]["table"]
        loss, _, state = run(built, STEPS + MORE, begin=begin)
        host = padding.without(jax.device_get(state.params), built.model.axes(), size)
        apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), plain, host)
        out[name] = dict(
            loss=loss.tolist(),
            furthest=max(jax.tree.leaves(apart)),
            rows=table.shape[0],
            spec=str(table.sharding.spec),
        )
    (folder / "found.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
