"""Safetensors files from anyone: the header is checked before a library believes it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the name bfloat16)
import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, nearest, require

LONGEST_HEADER = 100 * 2**20  # the library's own bound
KINDS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a file under the names it gives them, and its metadata.

    Raises:
      UserError: for a damaged file, a tensor without entries, a name that stands there twice, or a
        type that networks of this library do not have.
    """
    import safetensors

    try:
        header = _header(path)
        for name, entry in header.items():
            if name != "__metadata__":
                _check(path, name, entry)
        with safetensors.safe_open(path, "numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (
        safetensors.SafetensorError,
        TypeError,
        ValueError,
        AttributeError,
        OSError,
        RecursionError,
    ) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is a damaged safetensors file: {reason}") from error


def sizes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type (BF16, F32, ...) of every tensor of a file; no tensor is read.

    Raises:
      UserError: as `read_safetensors`.
    """
    try:
        header = _header(path)
        header.pop("__metadata__", None)
        for name, entry in header.items():
            _check(path, name, entry)
        return {n: (tuple(e["shape"]), str(e["dtype"])) for n, e in header.items()}
    except (TypeError, ValueError, AttributeError, OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is a damaged safetensors file: {reason}") from error


def _header(path: Path) -> dict[str, Any]:
    """What the file says of its tensors."""
    with reading.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else -1
        if not 0 <= length <= min(LONGEST_HEADER, size - 8):
            raise ValueError("its header is longer than the file")
        text = file.read(length).decode("utf-8")
    found = json.loads(text, object_pairs_hook=reading.unique)
    if not isinstance(found, dict):
        raise ValueError("its header is no table")
    return found


def _check(path: Path, name: str, entry: Any) -> None:
    """Shapes claim nothing that is not there: an empty tensor may claim any other dimension."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise ValueError(f"it gives {name!r} no shape")
    require(all(n > 0 for n in shape), f"{path}: {name} has shape {tuple(shape)}, which is empty")
    kind = str(entry.get("dtype"))
    require(kind in KINDS, f"{path}: {name} is stored as {kind}; {nearest(kind, KINDS)}")
