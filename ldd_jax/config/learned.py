"""Time grids by name, or from the file that `distill` writes, which may hold temperatures too."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ldd_jax.core import reading, registry
from ldd_jax.core.checks import UserError, is_number, require
from ldd_jax.samplers.logits import Readout

SUFFIX = ".json"


@dataclasses.dataclass(frozen=True)
class Learned:
    """A grid, and where it comes from a file what goes with it: a rule, steps, temperatures."""

    grid: Any
    step: Any = None
    steps: int | None = None
    temperatures: tuple[float, ...] = ()

    def over(self, readout: Readout) -> Readout:
        """A read-out with these temperatures, if there are any."""
        if not self.temperatures:
            return readout
        return dataclasses.replace(readout, temperatures=self.temperatures)


def grid(text: str) -> Learned:
    """From `NAME[:field=value,...]`, or a FILE.json.

    Raises:
      UserError: for an unknown name, or a file that holds no grid.
    """
    if not text.endswith(SUFFIX):
        return Learned(grid=registry.parse("grid", text))
    try:
        found = reading.read_json(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"grid {text} cannot be read: {why}") from error
    require(
        isinstance(found, dict) and isinstance(found.get("grid"), dict),
        f"grid {text} holds no 'grid'; it is a file that distill writes",
    )
    steps, factors = found.get("steps"), found.get("temperatures", [])
    require(
        steps is None or (type(steps) is int and 1 <= steps < 2**31),
        f"grid {text}: steps is {steps!r}; expected a whole number from 1 on",
    )
    require(
        isinstance(factors, list) and all(map(is_number, factors)),
        f"grid {text}: temperatures are {factors!r}; expected a list of numbers",
    )
    try:
        made = Learned(
            grid=registry.build("grid", found["grid"]),
            step=registry.build("step", found["step"]) if "step" in found else None,
            steps=steps,
            temperatures=tuple(map(float, factors)),
        )
        made.over(Readout())
    except (UserError, ValueError) as error:
        raise UserError(f"grid {text}: {error}") from error
    return made


def label(text: str) -> str:
    """What tells a grid from others: its name, or a file's name and what it holds."""
    if not text.endswith(SUFFIX):
        return text
    found = grid(text)
    parts = [registry.section(p).to_dict() for p in (found.grid, found.step) if p is not None]
    held = json.dumps([*parts, found.temperatures], sort_keys=True)
    return f"{Path(text).stem}-{hashlib.sha256(held.encode()).hexdigest()[:8]}"
