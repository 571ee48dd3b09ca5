"""One of two processes that save and check checkpoints; says what it hashed, or dies at it.

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

from ldd_jax.core.checks import UserError
from ldd_jax.training import digests, distributed
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
    """Save steps 1 and 2, look at them again, and once more with a file of the second damaged."""
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
    saved, name, newest = hashed.copy(), "é" * 200, []
    found: dict = {"saved": saved, "told": [*distributed.told(name * rank), name]}
    for damage in (False, True):
        hashed.clear()
        if damage and rank == 1:
            damaged(Path(next(n for n in sorted(found["checked"]) if "/ema/" in n)))
        distributed.barrier("damage")
        if damage:
            reader = Checkpoints(folder, read_only=True)
            try:
                reader.restore_params(state(mesh, 2).params, ema=True, step=2)
            except UserError as error:
                found["said"] = str(error)
        again = Checkpoints(folder)
        newest.append(again.latest())
        found.setdefault("checked", hashed.copy())
    (folder / f"found.{rank}").write_text(json.dumps(found | {"newest": newest}))


def damaged(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
