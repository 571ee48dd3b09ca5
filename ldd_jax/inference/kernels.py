"""Kernels of jumps that a finished run tells: which symbols its embedding has near each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldd_jax.core.checks import UserError, require
from ldd_jax.core.storage import at
from ldd_jax.inference.loading import load_trained
from ldd_jax.processes.kernels import NeighbourKernel, nearest_neighbours


def learned(workdir: str, count: str) -> tuple[NeighbourKernel, Any]:
    """The kernel of nearest neighbours in a run's token table, and the run's data section.

    Args:
      workdir: of a finished run.
      count: neighbours of a symbol, as typed.

    Raises:
      UserError: for what is no run or no number.
    """
    require(bool(workdir), "neighbours in which embedding? give from=WORKDIR, a finished run")
    require(count.isdigit(), f"near={count}; a whole number of neighbours is wanted")
    run, params, _ = load_trained(at(workdir))
    table = np.asarray(params["trunk"]["embed"]["table"])[: run.tokenizer.size]
    try:
        return NeighbourKernel(near=nearest_neighbours(table, int(count))), run.config.data
    except ValueError as error:
        raise UserError(f"near={count}: {error}") from error
