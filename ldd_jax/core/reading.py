"""Files read within stated bounds, whoever wrote them.

A name may stand for a pipe that never answers or a device without end, and a small file may claim
or unpack to more than the machine has. Only regular files are read, each kind up to a size, and
what is unpacked may be so many times as large as what is stored.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import zipfile
import zlib
from typing import Any

import numpy as np

from ldd_jax.core import storage
from ldd_jax.core.storage import Name

LARGEST_JSON = 1 << 26  # a config is 5 kB, the digests of a thousand files 100 kB
LARGEST_VOCABULARY = 1 << 28  # those of 256,000 tokens have 33 MB
LONGEST_TEXT = 1 << 26  # characters of a line, or of a value in a table
MOST_DIGITS = 100
# Text shrinks to a tenth, logs to a fiftieth; gzip can shrink zeros to a thousandth.
RATIO, ALWAYS = 100, 1 << 26


def opened(path: Name) -> io.BufferedReader:
    """A regular file, to be read; of a bucket, a copy.

    Raises:
      OSError: for anything else, without waiting: a pipe has perhaps no writer.
    """
    place = storage.in_bucket(path)
    if place is None:
        return open(path, "rb", opener=_regular)
    with storage.passing() as folder:  # what is open stays until it is closed
        return open(place.download(folder / "copy"), "rb")


def _regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # of a folder Python says so itself
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is a pipe or device, no regular file", path)


def read(path: Name, most: int = LARGEST_JSON) -> bytes:
    """All bytes of a regular file.

    Raises:
      OSError: also for one of more than `most` bytes.
    """
    with opened(path) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data


def read_text(path: Name, most: int = LARGEST_JSON) -> str:
    """A UTF-8 text.

    Raises:
      OSError: as `read`.
      UnicodeDecodeError: for what is none.
    """
    return read(path, most).decode("utf-8")


def read_json(path: Name, most: int = LARGEST_JSON) -> Any:
    """The value of a JSON file.

    Raises:
      OSError: as `read`.
      ValueError: for what is no JSON, is nested too deep, names a key twice, or holds half a
        character (a surrogate) or a number of more than `MOST_DIGITS` digits.
    """
    text = read_text(path, most)
    try:
        found = json.loads(text, object_pairs_hook=unique, parse_int=_whole)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character (surrogate)") from error
    return found


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads`; a key that stands there twice would hide a value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def swollen(stored: int, unpacked: int) -> bool:
    """Whether so many bytes are more than `RATIO` times those stored, and more than `ALWAYS`."""
    return unpacked > max(ALWAYS, RATIO * stored)


def read_npz(path: Name) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, plain numbers only.

    Raises:
      OSError: as `opened`.
      ValueError: for what is no such file, or unpacks to more than `swollen` allows.
    """
    try:
        with opened(path) as stream:
            with zipfile.ZipFile(stream) as archive:
                claimed = sum(entry.file_size for entry in archive.infolist())
            size = os.fstat(stream.fileno()).st_size
            if swollen(size, claimed):
                raise ValueError(f"its {size:,} bytes unpack to {claimed:,}")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"no .npz file: {error}") from error
    except (MemoryError, NotImplementedError, RuntimeError, KeyError, SyntaxError) as error:
        raise ValueError(f"damaged: {' '.join(str(error).split())[:200]}") from error
