"""Files of a corpus: found by glob, unpacked, and read line by line with garbage refused."""

from __future__ import annotations

import collections
import glob
import gzip
import hashlib
import io
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ldd_jax.core import reading, storage
from ldd_jax.core.buckets import Bucket
from ldd_jax.core.checks import UserError, require

MANIFEST = "manifest.json"
# A copy of so many bytes is no coincidence; equal small files may be equal documents.
_LARGE = 1 << 20
MOST_FILES = 10_000


def find_files(path: str, otherwise: str = "") -> list[str]:
    """The file, or the sorted files of the glob.

    Args:
      path: a file or a glob.
      otherwise: what else could be given, for the message if there is none.

    Raises:
      UserError: if there is none, more than `MOST_FILES`, something that is no regular file, or
        two large files that are the same to the byte.
    """
    bucket = storage.in_bucket(path)
    if bucket is not None:
        return _in_bucket(path, bucket)
    given = os.path.expanduser(path)
    if os.path.isdir(given):
        raise UserError(
            f"{path} is a folder without {MANIFEST}; give a glob such as {path.rstrip('/')}/*.txt, "
            "or a folder that 'prepare' wrote"
        )
    if os.path.exists(given):
        require(os.path.isfile(given), f"{path} is a pipe or device; corpora are regular files")
        return [given]
    found = sorted(f for f in _matching(path, given) if os.path.isfile(f))
    if not found:
        what = "matches no file" if glob.has_magic(given) else "does not exist"
        raise UserError(f"{path} {what} ({otherwise})")
    _refuse_copies(path, found)
    return found


def _in_bucket(path: str, bucket: Bucket) -> list[str]:
    """Objects that a name or the pattern in its last part stands for."""
    try:
        found = [bucket] if bucket.is_file() else list(bucket.parent.glob(bucket.name))
        files = sorted(str(one) for one in found if one.is_file())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    require(
        bool(files), f"{path} matches no object; a pattern may stand in the last part of its name"
    )
    require(len(files) <= MOST_FILES, f"{path} matches more than {MOST_FILES:,} objects")
    return files


def _matching(path: str, given: str) -> list[str]:
    """What a glob matches; a `**` stays out of linked folders, which may lead in circles."""
    parts = Path(given).parts
    matches: Iterator[str] = glob.iglob(given)
    if "**" in parts:
        at = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        hidden = any(part.startswith(".") for part in parts[at:])
        below = Path(*parts[:at]).glob(os.path.join(*parts[at:]))
        matches = (
            str(p) for p in below if hidden or not any(n.startswith(".") for n in p.parts[at:])
        )
    try:
        found = list(dict.fromkeys(itertools.islice(matches, MOST_FILES + 1)))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be searched: {error}") from error
    require(
        len(found) <= MOST_FILES,
        f"{path} matches more than {MOST_FILES:,} files; name fewer, or join them",
    )
    return found


def _refuse_copies(path: str, files: list[str]) -> None:
    """Only files of one size are read for it."""
    sizes = collections.defaultdict(list)
    for file in files:
        if (size := os.path.getsize(file)) >= _LARGE:
            sizes[size].append(file)
    for alike in sizes.values():
        seen: dict[bytes, str] = {}
        for file in alike if len(alike) > 1 else ():
            first = seen.setdefault(_hash(file), file)
            if first != file:
                raise UserError(f"{path} holds {first} twice: {file} is the same; remove one")


def _hash(file: str) -> bytes:
    try:
        with reading.opened(file) as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


class _Unpacked(gzip.GzipFile):
    """A gzip file that does not swell without bound."""

    def __init__(self, file: str):
        raw = reading.opened(file)
        super().__init__(file, fileobj=raw)
        self.myfileobj = raw  # type: ignore[assignment]  # closed with this one
        self.size = os.fstat(raw.fileno()).st_size

    def read1(self, size: int = -1) -> bytes:
        """As of GzipFile; what TextIOWrapper calls."""
        data = super().read1(size)
        if reading.swollen(self.size, self.tell()):
            raise UserError(
                f"{self.name} unpacks to over {reading.RATIO} times its size; unpack it first"
            )
        return data


def _open(file: str) -> BinaryIO:
    try:
        return cast(BinaryIO, _Unpacked(file)) if file.endswith(".gz") else reading.opened(file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def numbered_lines(file: str) -> Iterator[tuple[int, str]]:
    """Lines without their ends, from 1; a file that is not UTF-8 text is refused.

    Raises:
      UserError: for what is no text, cannot be read, or vanishes on the way, and for a line of
        more than `reading.LONGEST_TEXT` characters.
    """
    with _open(file) as raw:
        number = 0
        try:
            stream = io.TextIOWrapper(raw, encoding="utf-8-sig", newline=None)
            lines = iter(lambda: stream.readline(reading.LONGEST_TEXT + 2), "")
            for number, line in enumerate(lines, 1):
                line = line.removesuffix("\n")
                if len(line) > reading.LONGEST_TEXT:
                    raise UserError(
                        f"{file}:{number}: a line of more than {reading.LONGEST_TEXT:,} "
                        "characters; break it first"
                    )
                if "\0" in line:
                    raise UserError(f"{file}:{number}: a zero byte; this is not a text file")
                yield number, line
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file}: not UTF-8 text after line {number} ({error.reason}); convert it first"
            ) from error
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"cannot read {file}: {error}") from error
