"""Harm to files, and where it is looked for."""

from __future__ import annotations

import os
from pathlib import Path


def data_file(workdir: Path, step: int, item: str) -> Path:
    """The largest file of an item of a checkpoint."""
    found = (p for p in (workdir / "checkpoints" / str(step) / item).rglob("*") if p.is_file())
    return max(found, key=lambda p: (p.stat().st_size, p.name))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


HARM = (truncate, empty, flip, remove)
