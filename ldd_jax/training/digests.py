"""Digests of a folder's files, written into it before it gets its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from ldd_jax.core import reading, writing

FILE, _STAMP = "digests.json", "_CHECKPOINT_METADATA"


def write(folder: Path) -> None:
    """Write size and SHA-256 of every file below `folder` into its `digests.json`.

    Orbax stamps its own note of the time later; nothing is read from it.
    """
    found = {
        str(path.relative_to(folder)): [path.stat().st_size, _sha256(path)]
        for path in _files(folder)
    }
    writing.write(folder / FILE, json.dumps({"sha256": found}, indent=0) + "\n")


def fault(folder: Path, parts: Collection[str] = ()) -> str:
    """What is wrong with the files of `folder`, in words; empty if nothing is.

    Args:
      folder: with a `digests.json`.
      parts: only files below these names; empty = all.
    """
    try:
        stated = reading.read_json(folder / FILE)["sha256"]
        wanted = {n: (int(s), str(d)) for n, (s, d) in stated.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return f"{FILE} is missing or damaged"
    for name, (size, digest) in sorted(wanted.items()):
        if parts and name.split("/")[0] not in parts:
            continue
        path = folder / name  # whose own way may well go up
        if ".." in Path(name).parts or Path(name).is_absolute():
            return f"{FILE} names {name!a}, which is not in the folder"
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found} bytes, not {size}"
            if _sha256(path) != digest:
                return f"{name} is not what was written"
        except (FileNotFoundError, ValueError):  # ValueError: a name that no file can have
            return f"{ascii(name)[1:-1]} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (FILE, _STAMP))


def _sha256(path: Path) -> str:
    with reading.opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
