"""Digests of a folder's files, written into it before it gets its name.

Of what several processes write into one folder each hashes its own share, and the first joins them;
likewise each checks a share of what all of them read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ldd_jax.core import reading, writing

MOST = 16  # files that are read at a time
FILE, _STAMP = "digests.json", "_CHECKPOINT_METADATA"
SHARE = ".digests-{}.json"


def share(item: Path, rank: int) -> None:
    """Write digests of the arrays that process `rank` wrote below `item`, for `write` to join.

    Args:
      item: folder of one item of a checkpoint.
      rank: number of the process, whose arrays Orbax keeps apart (`ocdbt.process_N`).
    """
    found = _hashed(item, list(_files(item / f"ocdbt.process_{rank}")))
    writing.write(item / SHARE.format(rank), json.dumps({"sha256": found}))


def write(folder: Path, count: int = 1, patience: float = 60.0) -> None:
    """Write size and SHA-256 of every file below `folder` into its `digests.json`.

    What is in a share is taken from there, and what is in none is hashed here. Orbax stamps its own
    note of the time later; nothing is read from it.

    Args:
      folder: of a checkpoint, with items below it.
      count: processes that have a share of every item in which the first has one.
      patience: seconds to wait until a network's file system shows a share.

    Raises:
      OSError: if a share is not there.
    """
    items = [p for p in sorted(folder.iterdir()) if (p / SHARE.format(0)).exists()]
    shares = [item / SHARE.format(rank) for item in items for rank in range(count)]
    until = time.monotonic() + patience
    found: dict[str, Any] = {}
    for one in shares:
        while not one.exists() and time.monotonic() < until:
            time.sleep(0.2)
        stated = reading.read_json(one)["sha256"]
        found |= {f"{one.parent.name}/{name}": facts for name, facts in stated.items()}
    for one in shares:
        one.unlink()
    rest = [p for p in _files(folder) if str(p.relative_to(folder)) not in found]
    found = dict(sorted((found | _hashed(folder, rest)).items()))
    writing.write(folder / FILE, json.dumps({"sha256": found}, indent=0) + "\n")


def _hashed(folder: Path, files: list[Path]) -> dict[str, tuple[int, str]]:
    """Size and digest of each file, by its name below `folder`."""
    with _threads() as threads:
        digests = list(threads.map(_sha256, files))
    return {
        str(path.relative_to(folder)): (path.stat().st_size, digest)
        for path, digest in zip(files, digests, strict=True)
    }


def fault(folder: Path, parts: Collection[str] = (), rank: int = 0, count: int = 1) -> str:
    """What is wrong with a share of the files of `folder`, in words; empty if nothing is.

    Args:
      folder: with a `digests.json`.
      parts: only files below these names; empty = all.
      rank: number of the share; every file is in one of them, whoever wrote it.
      count: of shares, of about as many bytes each.
    """
    try:
        stated = reading.read_json(folder / FILE)["sha256"]
        wanted = {n: (int(s), str(d)) for n, (s, d) in stated.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return f"{FILE} is missing or damaged"
    names = [n for n in wanted if not parts or n.split("/")[0] in parts]
    names = sorted(sorted(names, key=lambda n: (-wanted[n][0], n))[rank::count])
    with _threads() as threads:
        found = threads.map(lambda n: _fault_of(folder, n, *wanted[n]), names)
        why = next(filter(None, found), "")
        threads.shutdown(cancel_futures=True)  # of a damaged one the rest is not read
    return why


def _fault_of(folder: Path, name: str, size: int, digest: str) -> str:
    """What is wrong with one file, in words; "" = nothing."""
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


def _threads() -> ThreadPoolExecutor:
    """As many as read side by side; hashing leaves Python's lock."""
    return ThreadPoolExecutor(min(MOST, os.cpu_count() or 1))


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (FILE, _STAMP))


def _sha256(path: Path) -> str:
    with reading.opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
