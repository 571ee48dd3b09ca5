"""A place in a bucket, with the names of `pathlib`: what is written is there whole or not at all.

Files are objects of an fsspec file system. A bucket has no folders, links, locks or renames: a
folder is a common beginning of names, and what has to appear at once gets its index last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from ldd_jax.core.checks import UserError, require

# Stores of objects, and what reads them; names that fsspec would open otherwise (http, ssh, zip)
# are not followed, since a stranger's config may hold them.
STORES = {
    "gs": "pip install 'ldd-jax[gcs]'",
    "gcs": "pip install 'ldd-jax[gcs]'",
    "s3": "pip install 'ldd-jax[s3]'",
    "s3a": "pip install 'ldd-jax[s3]'",
    "az": "pip install adlfs",
    "abfs": "pip install adlfs",
    "oci": "pip install ocifs",
    "oss": "pip install ossfs",
    "memory": "fsspec",
}
ATONCE = 16  # requests
# Without these a folder is none: they are written last, and make it one.
INDICES = ("digests.json", "manifest.json", "config.json")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What `Path.stat` says of size and time."""

    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        """Nanoseconds."""
        return int(self.st_mtime * 1e9)


class Bucket(PurePosixPath):
    """`gs://bucket/name`; errors of any library behind it are OSErrors that say what happened."""

    def __str__(self) -> str:
        scheme, *rest = self.parts or ("",)
        return f"{scheme}//{'/'.join(rest)}"

    __fspath__ = __str__

    @property
    def fs(self) -> Any:
        """The file system; one for all places of a scheme.

        Raises:
          UserError: if the scheme is no store, or what reads it is not installed.
        """
        import fsspec

        scheme = self.parts[0].removesuffix(":").lower()
        require(
            scheme in STORES,
            f"{self}: only local files and buckets ({', '.join(sorted(STORES))}) can be given",
        )
        try:
            # What other processes write has to be seen.
            return fsspec.filesystem(scheme, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(f"{self} needs one more library: {STORES[scheme]}") from error
        except Exception as error:  # credentials that cannot be read, and whatever else
            raise UserError(f"{self} cannot be reached: {_words(error)}") from error

    @contextlib.contextmanager
    def _said(self) -> Iterator[Any]:
        """The file system; what it raises becomes an OSError with words and this name."""
        try:
            yield self.fs
        except (UserError, KeyboardInterrupt):
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from error
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self)) from error
        except PermissionError as error:
            raise PermissionError(errno.EACCES, "permission denied", str(self)) from error
        except Exception as error:
            number = getattr(error, "errno", None)
            number = number if isinstance(number, int) else errno.EIO
            raise OSError(number, f"the bucket answers: {_words(error)}", str(self)) from error

    # pathlib's questions -----------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether an object has this name, or one that begins with it."""
        with self._said() as fs:
            return bool(fs.exists(str(self)))

    def is_file(self) -> bool:
        """Whether an object has this name."""
        with self._said() as fs:
            return bool(fs.isfile(str(self)))

    def is_dir(self) -> bool:
        """Whether objects lie below this name."""
        with self._said() as fs:
            return bool(fs.isdir(str(self)))

    def is_symlink(self) -> bool:
        """Never."""
        return False

    def iterdir(self) -> Iterator[Bucket]:
        """What lies right below; nothing lies below what is not there."""
        try:
            with self._said() as fs:
                found = fs.ls(str(self), detail=False)
        except FileNotFoundError:
            return
        for name in sorted({PurePosixPath(one).name for one in found} - {self.name, ""}):
            yield self / name

    def glob(self, pattern: str) -> Iterator[Bucket]:
        """What lies right below with such a name."""
        return (p for p in self.iterdir() if fnmatch.fnmatchcase(p.name, pattern))

    def below(self) -> list[str]:
        """Names of all objects below, relative to this."""
        with self._said() as fs:
            root = fs._strip_protocol(str(self)).rstrip("/") + "/"
            return sorted(n.removeprefix(root) for n in fs.find(str(self)) if n.startswith(root))

    def stat(self) -> Facts:
        """Size and time; a folder is as old as the newest object right below it."""
        with self._said() as fs:
            found = fs.info(str(self))
            if found.get("type") == "directory":
                inside = [one for one in fs.ls(str(self), detail=True) if one["type"] == "file"]
                return Facts(0, max(map(_time, inside), default=0.0))
            return Facts(int(found.get("size") or 0), _time(found))

    def absolute(self) -> Bucket:
        """Itself."""
        return self

    def expanduser(self) -> Bucket:
        """Itself."""
        return self

    def resolve(self) -> Bucket:
        """Itself."""
        return self

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a bucket has no folders, and buckets themselves are not made.

        Args:
          mode: as of pathlib.
          parents: as of pathlib.
          exist_ok: as of pathlib.
        """

    # objects -----------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self._said() as fs:
            return fs.cat_file(str(self))

    def put(self, data: bytes, *, new: bool = False) -> None:
        """Write the whole object.

        Args:
          data: its content.
          new: only if nothing has this name, in one step where the store knows how.

        Raises:
          FileExistsError: with `new`, if something has.
        """
        with self._said() as fs:
            if not new:
                fs.pipe_file(str(self), data)
                return
            try:
                fs.pipe_file(str(self), data, mode="create")
            except (NotImplementedError, TypeError):
                if fs.exists(str(self)):
                    raise FileExistsError(str(self)) from None
                fs.pipe_file(str(self), data)

    @staticmethod
    def files(local: Path) -> list[str]:
        """Names of the files below a local folder."""
        return sorted(p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file())

    def upload(self, local: Path, names: Sequence[str] | None = None) -> None:
        """Write the object, or objects below, from a local file or folder; indices last.

        Args:
          local: a file, or a folder.
          names: files of the folder; None = all.
        """
        if local.is_file():
            with self._said() as fs:
                fs.put_file(str(local), str(self))
            return
        names = self.files(local) if names is None else names
        send = lambda name: (self / name).upload(local / name)
        _each(send, [n for n in names if not _index(n)])
        for name in sorted(filter(_index, names), key=_rank):
            send(name)

    def download(self, local: Path) -> Path:
        """Copy the object, or all objects below, to a local place; returns it."""
        if self.is_file():
            local.parent.mkdir(parents=True, exist_ok=True)
            with self._said() as fs:
                fs.get_file(str(self), str(local))
            return local
        self.download_some(local, self.below())
        return local

    def download_some(self, local: Path, names: Sequence[str]) -> None:
        """Copy objects below, by their relative names, into a local folder."""
        for name in names:
            require(".." not in name.split("/"), f"{self / name} leads out of its folder")
        _each(lambda name: (self / name).download(local / name), names)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            with self._said() as fs:
                fs.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_all(self) -> None:
        """Remove all objects below, indices first: what is left is no whole folder."""
        for name in sorted(self.below(), key=lambda n: -_rank(n)):
            (self / name).unlink(missing_ok=True)
        with contextlib.suppress(Exception), self._said() as fs:
            fs.rmdir(str(self))  # where a store keeps empty folders

    def copy_to(self, target: Bucket) -> None:
        """Copy all objects below to another place of the store, indices last."""
        for name in sorted(self.below(), key=_rank):
            with self._said() as fs:
                fs.cp_file(str(self / name), str(target / name))


def _each(action: Callable[[Any], Any], items: Sequence[Any]) -> None:
    """Several at once: a store takes its time to answer, and many requests beside each other."""
    with ThreadPoolExecutor(ATONCE) as pool:
        for done in [pool.submit(action, item) for item in items]:
            done.result()


def _index(name: str) -> bool:
    """Whether a file makes the folder that is written one."""
    return name in INDICES


def _rank(name: str) -> int:
    last = name.rpartition("/")[2]
    return 1 + INDICES.index(last) if last in INDICES else 0


def _time(found: dict[str, Any]) -> float:
    """Seconds since the epoch, under the names that stores give it; 0 = it is not told."""
    for name in ("LastModified", "mtime", "updated", "created", "last_modified"):
        value = found.get(name)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime.datetime):
            return value.timestamp()
    return 0.0


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
