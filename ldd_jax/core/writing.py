"""The only way to a file: whole or not at all, and never through a link that somebody left there.

A workdir may come from a stranger. A link in it where this library is about to write would lead the
writing to any file of the user's. So a file appears under a name that nobody can know beforehand
and is moved to its place, which replaces a link and leaves its target alone; what is appended to
or held open is opened without following links; folders that are links are refused. Links that the
user names (`--output`, `core.outputs`) are followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ldd_jax.core import storage
from ldd_jax.core.checks import UserError, require

_DRAFT = re.compile(r"\.ldd_jax-[0-9a-f]{16}\.partial")
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o7777


def is_draft(path: Path) -> bool:
    """Whether this is what a killed process left of a file that it was writing."""
    return bool(_DRAFT.fullmatch(path.name)) and not path.is_symlink() and path.is_file()


@contextlib.contextmanager
def replacing(path: str | Path, *, binary: bool = False, fresh: int = 0o666) -> Iterator[IO[Any]]:
    """A stream whose content is at `path` when the block ends well; else nothing has happened.

    Text is UTF-8; half a character (surrogate) is written as its escape, which JSON reads back. A
    link at `path` is replaced, its target left alone; a file keeps its permissions, one that was
    not there gets `fresh`, less the user's mask.

    Args:
      path: the file; its folder must be there.
      binary: a stream of bytes instead of text.
      fresh: permissions of a file that was not there.

    Raises:
      OSError: if it cannot be written.
    """
    path, bucket = storage.at(path), storage.in_bucket(path)
    if bucket is not None:
        with storage.passing() as folder:
            draft = folder / bucket.name
            with draft.open("xb") if binary else _text(draft) as stream:
                yield stream
            bucket.upload(draft)
        return
    mode = _permissions(path)
    draft = path.with_name(_unknown())
    number = os.open(draft, os.O_WRONLY | _NEW, fresh if mode is None else mode & 0o700)
    try:
        with _stream(number, binary) as stream:
            yield stream
            stream.flush()
            if mode is not None:
                os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write(path: str | Path, data: str | bytes, *, fresh: int = 0o666) -> None:
    """`replacing`, with the whole content at once.

    Args:
      path: the file.
      data: its whole content; text is written as UTF-8.
      fresh: permissions of a file that was not there.
    """
    with replacing(path, binary=isinstance(data, bytes), fresh=fresh) as stream:
        stream.write(data)


@contextlib.contextmanager
def through(path: str | Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A stream into a pipe or a device, which stays what it is.

    Args:
      path: of it.
      binary: a stream of bytes instead of text.

    Raises:
      OSError: if it cannot be written.
    """
    number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    with _stream(number, binary) as stream:
        yield stream


def append(path: str | Path, *, read: bool = False) -> IO[str]:
    """A text stream at the end of a file, made if absent.

    Raises:
      UserError: if `path` is a link, or no regular file.
      OSError: if it cannot be opened.
    """
    path, bucket = storage.at(path), storage.in_bucket(path)
    if bucket is not None:
        return storage.Appended(bucket)
    require(not path.is_symlink(), f"{path} is a link; it is not written through: put a file there")
    way = os.O_RDWR if read else os.O_WRONLY
    flags = way | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    number = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise UserError(f"{path} is no regular file; move it away")
    return open(number, "a+" if read else "a", encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder under another name, which gets the name `path` when the block ends well.

    Args:
      path: absent, or an empty folder, whose permissions are kept; of a link, its target.

    Raises:
      UserError: if `path` is something else.
      OSError: if it cannot be written.
    """
    bucket = storage.in_bucket(path)
    if bucket is not None:
        check_new_folder(path)
        with storage.passing() as draft:
            yield draft
            bucket.upload(draft)
        return
    path = behind_links(path)
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    draft = path.with_name(_unknown())
    draft.mkdir()
    try:
        yield draft
        if mode is not None:
            draft.chmod(mode)
        os.rename(draft, path)  # over an empty folder; any other is refused by the system
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def check_new_folder(path: str | Path, flag: str = "") -> None:
    """Refuse a place for a new folder that is taken.

    Raises:
      UserError: unless it is absent or an empty folder.
    """
    place, shown = storage.at(path), f"--{flag}={path}" if flag else str(path)
    there = place.exists() or place.is_symlink()
    taken = there and not (place.is_dir() and not any(place.iterdir()))
    require(
        not taken or _dangling(place), f"{shown} exists and is not an empty folder; give a new one"
    )


def subfolder(path: Path) -> Path:
    """A folder of a workdir for a library that writes local files, made if absent.

    Of a bucket it is a local one, whose files follow.

    Raises:
      UserError: if it is a link.
    """
    bucket = storage.in_bucket(path)
    if bucket is not None:
        return storage.mirrored(bucket)
    refuse_links([path])
    path.mkdir(parents=True, exist_ok=True)
    return path


def refuse_links(folders: Iterable[Path]) -> None:
    """Refuse folders that are links or have links in them, at any depth; absent ones are fine.

    Raises:
      UserError: naming the link.
    """

    def check(path: str | Path) -> None:
        if os.path.islink(path):
            raise UserError(
                f"{path} is a link to {os.readlink(path)}; nothing is written or deleted behind "
                "links in a workdir: put the folder itself there"
            )

    for folder in folders:
        if storage.in_bucket(folder):  # which knows no links
            continue
        check(folder)
        for place, inner, files in os.walk(folder):
            for name in (*inner, *files):
                check(os.path.join(place, name))


def check_folder(folder: Path, shown: str) -> None:
    """Refuse a folder that cannot be written, or made; nothing is.

    Args:
      folder: absent, or a folder.
      shown: what messages call it, such as --workdir=DIR.

    Raises:
      UserError: saying where.
    """
    if storage.in_bucket(folder):
        try:
            folder.exists()
        except OSError as error:
            raise UserError(f"{shown} cannot be reached: {error.strerror}") from error
        return
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    require(there.is_dir(), f"cannot write {shown}: {there} is not a folder")
    require(os.access(there, os.W_OK), f"cannot write {shown}: {there} is read-only")


def behind_links(path: str | Path) -> Path:
    """Behind links, which may lead to a file that is not there yet."""
    return Path(os.path.realpath(path))


def _dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _permissions(path: Path) -> int | None:
    """Of a regular file; None where there is none."""
    try:
        found = os.lstat(path).st_mode
    except OSError:
        return None
    return found & _PERMISSIONS if stat.S_ISREG(found) else None


def _unknown() -> str:
    """A name that nobody can have prepared a link for."""
    return f".ldd_jax-{secrets.token_hex(8)}.partial"


def _text(path: Path) -> IO[Any]:
    return path.open("x", encoding="utf-8", errors="backslashreplace")


def _stream(number: int, binary: bool) -> IO[Any]:
    if binary:
        return open(number, "wb")
    return open(number, "w", encoding="utf-8", errors="backslashreplace")
