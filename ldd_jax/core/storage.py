"""Where files are: a local path, or a place in a bucket; one interface to both.

`at` makes a path of what a user gave. Libraries that know local files alone get one: `local` copies
what they read, and `mirrored` is a folder whose files go to their bucket as they change. What is
appended to is written whole when it rests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, cast

from ldd_jax.core.buckets import Bucket

Name = str | os.PathLike[str]
_URL = re.compile(r"(?:^|[,=:])[A-Za-z][A-Za-z0-9+.-]*://")
_PLACE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+[^/]")
# What has changed is written after so many seconds, and less often if that takes long.
REST, SHARE = 10.0, 20.0


def is_url(given: str) -> bool:
    """Whether a text, or an item of a list in it, is an address such as `gs://bucket/run`."""
    return bool(_URL.search(given))


def at(given: Name) -> Path:
    """The path that a user named; a place in a bucket answers to the same names (`Bucket`).

    `pathlib.Path("gs://b/r")` has lost a slash, and means the same.
    """
    if isinstance(given, Bucket):
        return cast(Path, given)
    text = os.fspath(given)
    short = isinstance(given, Path) and _PLACE.match(text)
    if short or (_PLACE.match(text) and "://" in text):
        return cast(Path, Bucket(text))
    return Path(given)


def in_bucket(path: Name) -> Bucket | None:
    """The place in a bucket, None for a local path."""
    found = at(path)
    return found if isinstance(found, Bucket) else None


@functools.cache
def _root() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ldd_jax-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def scratch() -> Path:
    """A new local folder, which goes with the process; below TMPDIR."""
    return Path(tempfile.mkdtemp(dir=_root()))


@contextlib.contextmanager
def passing() -> Iterator[Path]:
    """A new local folder for as long as the block takes."""
    folder = scratch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_COPIES: dict[tuple[str, int, float], Path] = {}


def local(path: Name) -> Path:
    """The local file or folder itself, or a copy of what lies in a bucket, made once.

    Raises:
      OSError: if it cannot be read.
    """
    place = in_bucket(path)
    if place is None:
        return at(path)
    facts = place.stat()
    key = (str(place), facts.st_size, facts.st_mtime)
    if key not in _COPIES:
        _COPIES[key] = place.download(scratch() / (place.name or "copy"))
    return _COPIES[key]


# What rests --------------------------------------------------------------------------------------

_OPEN: weakref.WeakSet[Any] = weakref.WeakSet()
_TURN = threading.RLock()


def settle(*, force: bool = True) -> None:
    """Write what was appended or has changed; without `force` only what has rested.

    A checkpoint calls it first, so that what is said of the updates before it is there as well.

    Raises:
      OSError: if something cannot be written; it stays to be written.
    """
    with _TURN:
        for one in list(_OPEN):
            if force or time.monotonic() >= one.due:
                began = time.monotonic()
                one.settle()
                one.due = time.monotonic() + max(REST, SHARE * (time.monotonic() - began))


def forsake(folder: PurePath) -> None:
    """Write no more of what lies below a folder: it is another run's."""
    with _TURN:
        for one in [o for o in _OPEN if folder in o.place.parents]:
            _OPEN.discard(one)
            one.settle = lambda: None


@functools.cache
def _resting() -> threading.Thread:
    """Writes what rests, for as long as the process lives; what fails is tried again."""

    def look() -> None:
        while not never.wait(REST):
            with contextlib.suppress(Exception):
                settle(force=False)

    never = threading.Event()
    thread = threading.Thread(target=look, name="resting", daemon=True)
    thread.start()
    return thread


class Appended(io.StringIO):
    """A text that is appended to; the object is written whole, when it rests and at the end."""

    def __init__(self, place: Bucket):
        super().__init__(newline="")
        self.place, self.due, self.written = place, 0.0, 0
        with contextlib.suppress(FileNotFoundError):
            self.written = super().write(place.read_bytes().decode("utf-8", "replace"))
        _OPEN.add(self)
        _resting()

    def settle(self) -> None:
        """Write it, if there is something new."""
        text = self.getvalue()
        if len(text) > self.written:
            self.place.put(text.encode("utf-8", "backslashreplace"))
            self.written = len(text)

    def close(self) -> None:
        """Write it for the last time."""
        try:
            with _TURN:
                if not self.closed:
                    self.settle()
        finally:
            _OPEN.discard(self)
            super().close()


class _Mirror:
    """A local folder whose files go to a bucket as they change."""

    def __init__(self, place: Bucket):
        self.place, self.folder, self.due = place, scratch(), 0.0
        self.sent: dict[Path, tuple[int, int]] = {}

    def settle(self) -> None:
        """Upload what has changed."""
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            now = (path.stat().st_size, path.stat().st_mtime_ns)
            if self.sent.get(path) != now:
                (self.place / path.relative_to(self.folder).as_posix()).upload(path)
                self.sent[path] = now


_MIRRORS: dict[Bucket, _Mirror] = {}


def mirrored(path: Bucket) -> Path:
    """A local folder for a library to write into, whose files go to `path`."""
    mirror = _MIRRORS.setdefault(path, _Mirror(path))
    _OPEN.add(mirror)
    _resting()
    return mirror.folder
