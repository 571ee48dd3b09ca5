"""Files of JSON lines, a record each: of samples, and of whatever else a command found."""

from __future__ import annotations

import json
from typing import Any

from ldd_jax.core import outputs
from ldd_jax.training.metrics import finite


def line(record: dict[str, Any]) -> str:
    """A line of a sample file; numbers that JSON has no word for become null."""
    return json.dumps(finite(record), ensure_ascii=False) + "\n"


def write(place: outputs.Place | str, records: list[dict[str, Any]]) -> None:
    """Write a file that the user named, whole or not at all."""
    with outputs.place(place).open() as stream:
        stream.writelines(map(line, records))
