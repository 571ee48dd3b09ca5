"""One of two processes that save checkpoints; says which files it hashed, or dies while it does.

`python -m tests.training.hashed FOLDER ADDRESS RANK DIES`: DIES is the step at which process 1 is
killed when it comes to hash, 0 = none.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from ldd_jax.training import digests
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.state import TrainState

SHAPE = (2, 50_000)


def state(mesh: jax.sharding.Mesh, step: int) -> TrainState:
    """A kernel cut over the processes, a copy of a vector in each."""
    cut, copied = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    kernel = jax.jit(lambda: jnp.full(SHAPE, float(step)), out_shardings=cut)()
    vector, number = jax.jit(
        lambda: (jnp.ones(9), jnp.asarray(step, jnp.int32)), out_shardings=copied
    )()
    params = {"kernel": kernel, "vector": vector}
    return TrainState(step=number, params=params, ema=params, opt_state=())


def main(folder: Path, address: str, rank: int, dies: int) -> None:
    """Save steps 1 and 2."""
    jax.distributed.initialize(address, 2, rank, heartbeat_timeout_seconds=100)
    mesh = jax.make_mesh((2,), ("data",))
    hashed, sha256, share = [], digests._sha256, getattr(digests, "share", None)
    saver = Checkpoints(folder)

    def listed(path: Path) -> str:
        hashed.append(str(path))
        return sha256(path)

    def dying(*given: object) -> None:
        if (rank, saver.saving) == (1, dies):
            os.kill(os.getpid(), signal.SIGKILL)
        share(*given)

    digests._sha256, digests.share = listed, dying
    for step in (1, 2):
        saver.save(state(mesh, step), {"step": step})
    saver.close()
    (folder / f"hashed.{rank}").write_text(json.dumps(hashed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
