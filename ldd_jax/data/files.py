"""Files of a corpus: found by glob, unpacked, and read line by line with garbage refused."""

from __future__ import annotations

import collections
import glob
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from ldd_jax.core.checks import UserError

MANIFEST = "manifest.json"
# A copy of so many bytes is no coincidence; equal small files may be equal documents.
_LARGE = 1 << 20
# Text shrinks to a tenth, logs to a fiftieth; gzip itself can shrink zeros to a thousandth.
_RATIO, _ALWAYS = 300, 1 << 28


def find_files(path: str, otherwise: str = "") -> list[str]:
    """The file, or the sorted files of the glob.

    Args:
      path: a file or a glob.
      otherwise: what else could be given, for the message if there is none.

    Raises:
      UserError: if there is none, or two large files are the same to the byte.
    """
    given = os.path.expanduser(path)
    if os.path.isdir(given):
        raise UserError(
            f"{path} is a folder without {MANIFEST}; give a glob such as {path.rstrip('/')}/*.txt, "
            "or a folder that 'prepare' wrote"
        )
    if os.path.exists(given):
        return [given]
    found = sorted(f for f in glob.glob(given, recursive=True) if os.path.isfile(f))
    if not found:
        what = "matches no file" if glob.has_magic(given) else "does not exist"
        raise UserError(f"{path} {what} ({otherwise})")
    _refuse_copies(path, found)
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
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


class _Unpacked(gzip.GzipFile):
    """A gzip file that does not swell without bound."""

    def read1(self, size: int = -1) -> bytes:
        """As of GzipFile; what TextIOWrapper calls."""
        data = super().read1(size)
        if self.tell() > max(_ALWAYS, _RATIO * os.path.getsize(self.name)):
            raise UserError(f"{self.name} unpacks to over {_RATIO} times its size; unpack it first")
        return data


def _open(file: str) -> BinaryIO:
    try:
        return cast(BinaryIO, _Unpacked(file) if file.endswith(".gz") else open(file, "rb"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def numbered_lines(file: str) -> Iterator[tuple[int, str]]:
    """Lines without their ends, from 1; a file that is not UTF-8 text is refused.

    Raises:
      UserError: for what is no text, cannot be read, or vanishes on the way.
    """
    with _open(file) as raw:
        number = 0
        try:
            stream = io.TextIOWrapper(raw, encoding="utf-8-sig", newline=None)
            for number, line in enumerate(stream, 1):
                if "\0" in line:
                    raise UserError(f"{file}:{number}: a zero byte; this is not a text file")
                yield number, line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{file}: not UTF-8 text after line {number} ({error.reason}); convert it first"
            ) from error
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"cannot read {file}: {error}") from error
