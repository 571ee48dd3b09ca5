"""Run in a process with eight devices: python -m tests.training.adapted FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.config.recipes import make
from ldd_jax.core import registry
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.training.checkpoints import Checkpoints
from tests.training.common import ALPHABET, BATCH, LENGTH, run

STEPS, MORE, ANNEAL = 3, 3, 5
MESHES = {
    "data4_fsdp2": (8, dict(data=4, fsdp=2), 1),
    "data2_tensor2": (4, dict(data=2, tensor=2), 1),
    "accumulate": (1, dict(data=1), 4),
}


def experiment(place: tuple, **network):
    """A shifted llama with a latent whose mask opens."""
    count, shape, accumulate = place
    config = make(
        dict(method="lddm_m", size="tiny", network="llama"),
        data=dict(length=LENGTH),
        model=dict(width=16, depth=1, heads=4, kv_heads=2, hidden=32, shift="start", **network),
        objective=dict(anneal_steps=ANNEAL),
        context=dict(p=1.0),
        optim=dict(lr=1e-3, warmup_steps=2),
        training=dict(num_steps=10, batch_size=BATCH, ema_decay=0.9, accumulate=accumulate),
        process=dict(states=12, mask=10),
        mesh=shape,
    )
    mesh = registry.build("mesh", config.mesh).make(jax.devices()[:count])
    return experiments.build(config, CharacterTokenizer(ALPHABET), mesh)


def main(folder: Path) -> None:
    """Losses on one device, on many, in microbatches, and where one goes on in the middle."""
    one = experiment((1, dict(data=1), 1))
    loss, _, state = run(one, STEPS + MORE)
    half, _, middle = run(one, STEPS)
    checkpoints = Checkpoints(folder / "one")
    checkpoints.save(middle, {"step": STEPS})
    checkpoints.close()
    begin, _ = Checkpoints(folder / "one", read_only=True).restore(one.abstract())
    more, _, last = run(one, STEPS + MORE, begin=begin)
    leaves = lambda tree: jax.tree.leaves(jax.device_get(tree))
    same = all(np.array_equal(a, b) for a, b in zip(leaves(state), leaves(last)))
    out = {"one": loss.tolist(), "resumed": [*half.tolist(), *more.tolist()], "same": same}
    out["many"] = {n: run(experiment(p), STEPS + MORE)[0].tolist() for n, p in MESHES.items()}
    (folder / "found.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
