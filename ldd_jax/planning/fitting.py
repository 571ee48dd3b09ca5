"""Programs that the compiler finds no memory for, and what is said of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ldd_jax.core.checks import UserError, require
from ldd_jax.planning import aot

# What the compiler says that it needs and has, by versions of libtpu.
FIGURES = (
    r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
    r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])",
)


class DoesNotFit(UserError):
    """A program that the compiler finds no memory for."""


def fitting(made: Callable[[], aot.Compiled], per_chip: int) -> aot.Compiled:
    """The compiled program.

    Args:
      made: makes it.
      per_chip: sequences a chip, for the message.

    Raises:
      DoesNotFit: with the compiler's own figures.
      UserError: for whatever else the compiler says.
    """
    try:
        return made()
    except UserError:
        raise
    except Exception as error:  # XLA's own kinds
        text = str(error)
        require("RESOURCE_EXHAUSTED" in text, (text.splitlines() or [type(error).__name__])[0])
        used = next(filter(None, (re.search(p, text) for p in FIGURES)), None)
        unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
        told = [float(used[i]) * unit[used[i + 1]] / aot.GIB if used else None for i in (1, 3)]
        raise DoesNotFit(too_much(per_chip, *told)) from error


def too_much(per_chip: int, needed: float | None, capacity: float | None) -> str:
    """What is said of a batch that does not fit.

    Args:
      per_chip: sequences a chip.
      needed: GiB of a device, as far as the compiler says; None = it does not.
      capacity: that it has.
    """
    figures = f" ({needed:.1f} of {capacity:.1f} GiB a device)" if needed and capacity else ""
    return (
        f"--per_chip={per_chip} does not fit{figures}; lower it, keep less "
        "(--config.model.remat=full, --config.model.chunks=4), take more chips, or let --search "
        "find the largest that does"
    )


def unfit(record: dict[str, Any]) -> str:
    """Why a record's batch, or each of a search, does not fit; "" = it does."""
    if "tried" in record:
        sizes = [entry["sequences_per_chip"] for entry in record["tried"]]
        return "" if record["best"] else f"no batch fits, from {max(sizes)} sequences a chip down"
    memory = record.get("gib_per_device", {})
    if record.get("fits", True):
        return ""
    return too_much(record["sequences_per_chip"], memory["peak"], memory["capacity"])
