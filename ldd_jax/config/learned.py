"""Time grids by name, or from the file that `distill` writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ldd_jax.core import reading, registry
from ldd_jax.core.checks import UserError, require

SUFFIX = ".json"


def grid(text: str) -> tuple[Any, int | None]:
    """A grid from `NAME[:field=value,...]` or FILE.json, and the steps that a file was made for.

    Raises:
      UserError: for an unknown name, or a file that holds no grid.
    """
    if not text.endswith(SUFFIX):
        return registry.parse("grid", text), None
    try:
        found = reading.read_json(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"grid {text} cannot be read: {why}") from error
    require(
        isinstance(found, dict) and isinstance(found.get("grid"), dict),
        f"grid {text} holds no 'grid'; it is a file that distill writes",
    )
    steps = found.get("steps")
    require(
        steps is None or (type(steps) is int and 1 <= steps < 2**31),
        f"grid {text}: steps is {steps!r}; expected a whole number from 1 on",
    )
    try:
        return registry.build("grid", found["grid"]), steps
    except UserError as error:
        raise UserError(f"grid {text}: {error}") from error


def label(text: str) -> str:
    """What tells a grid from others: its name, or a file's name and what it holds."""
    if not text.endswith(SUFFIX):
        return text
    held = json.dumps(registry.section(grid(text)[0]).to_dict(), sort_keys=True)
    return f"{Path(text).stem}-{hashlib.sha256(held.encode()).hexdigest()[:8]}"
