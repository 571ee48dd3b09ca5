"""How Orbax writes the items of a checkpoint: every process hashes what it wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ldd_jax.training import digests

ARRAYS = ("params", "ema", "optim", "aux")


def by_item(primary: Any, *, apart: bool) -> dict[str, Any]:
    """For each item of a checkpoint what writes and reads it.

    Args:
      primary: which process speaks for all, in Orbax's options.
      apart: every process has a folder of its own, and hashes that in the end. A shard of an array
        is a file there, so that what all wrote is one set of files.
    """
    found: dict[str, Any] = {"meta": ocp.JsonCheckpointHandler(multiprocessing_options=primary)}
    for name in ARRAYS:
        arrays: Any = ocp.StandardCheckpointHandler(
            multiprocessing_options=primary, use_ocdbt=not apart
        )
        if not apart:  # of a class of our own Orbax would need others' names in every file
            arrays.async_save = functools.partial(_hashed, arrays.async_save)
        found[name] = arrays
    return found


async def _hashed(save: Callable[..., Any], directory: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """A save of arrays, which has ended once this process has hashed its own.

    That is in the thread that waits for the files, beside the next updates and before the barrier
    behind which the first process names the checkpoint.
    """
    written = await save(directory, *args, **kwargs)
    share = functools.partial(digests.share, Path(directory), jax.process_index())
    return [ocp.future.ChainedFuture(written or [], share)]
