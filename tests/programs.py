"""Compiled programs that outlive a run of the tests, in pytest's own cache."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from jax._src.compilation_cache import decompress_executable

from ldd_jax.core.compilation import processor

# Days after which a program is compiled anew.
AGE = 14


def kept(place: Path, now: float | None = None) -> Path:
    """The folder of this processor's programs in `place`, without torn and old files.

    JAX writes an entry in place: a test that is killed may leave a part of one. An entry is whole
    if it decompresses. A folder may be seen by several machines, so each kind has its own.
    """
    folder = place / processor()[:16]
    folder.mkdir(exist_ok=True)
    limit = (time.time() if now is None else now) - AGE * 86400
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another run of the tests removed it
            if file.stat().st_mtime < limit or not whole(file.read_bytes()):
                file.unlink()
    return folder


def whole(entry: bytes) -> bool:
    """Whether an entry decompresses."""
    try:
        return bool(decompress_executable(entry))
    except Exception:  # the libraries' own kinds of errors
        return False
