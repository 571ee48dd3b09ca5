"""Where a result goes that a user asked for: found out, or refused, before any work is done."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ldd_jax.core import storage, writing
from ldd_jax.core.checks import UserError, require


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a result goes that a user asked for; it could be written when this was made.

    Attributes:
      path: of the file, behind links that the user named.
      through: it is a pipe or a device such as /dev/null, which is written through.
      shown: what messages call it.
    """

    path: Path
    through: bool
    shown: str

    @contextlib.contextmanager
    def open(self, *, binary: bool = False) -> Iterator[IO[Any]]:
        """A stream to it: `writing.replacing`, or straight through.

        Raises:
          UserError: if it cannot be written; a regular file is then as it was.
        """
        try:
            way = writing.through if self.through else writing.replacing
            with way(self.path, binary=binary) as stream:
                yield stream
        except OSError as error:
            raise UserError(f"{self.shown}: {error.strerror or error}") from error


def place(given: str | Path | Place, default: Path | None = None, flag: str = "output") -> Place:
    """The file that a flag names, or a file of a workdir if it is empty.

    Links are followed where the user named them; a link in a workdir is replaced. A place is
    returned as it is.

    Args:
      given: what the user named, "" = nothing; or a place.
      default: file of the workdir taken in its stead; None = the user must name one.
      flag: name of the flag, for the messages.

    Raises:
      UserError: saying why it cannot be written, before any work is done.
    """
    if isinstance(given, Place):
        return given
    own = not str(given)
    require(not own or default is not None, f"--{flag} is missing; give --{flag}=FILE")
    path = storage.at((default or "") if own else given)
    shown = f"--{flag}={path}"
    if storage.in_bucket(path):
        require(not str(given).endswith("/"), f"{shown} is a folder; give a file")
        writing.check_folder(path.parent, shown)
        return Place(path, False, shown)
    kind = _kind(path, follow=not own)
    require(
        kind != stat.S_IFDIR and not str(given).endswith(os.sep),
        f"{shown} is a folder; give a file",
    )
    if not own and kind in (stat.S_IFIFO, stat.S_IFCHR):
        require(os.access(path, os.W_OK), f"{shown} may not be written")
        return Place(path, True, shown)
    require(
        own or kind in (0, stat.S_IFREG), f"{shown} is a {_NAMES.get(kind, 'device')}; give a file"
    )
    target = path if own else writing.behind_links(path)
    require(own or not target.is_symlink(), f"{shown} is a link that leads back to itself")
    folder = target.parent
    require(folder.is_dir(), f"{shown}: folder {folder} does not exist")
    require(os.access(folder, os.W_OK), f"{shown}: folder {folder} is read-only")
    return Place(target, False, shown)


_NAMES = {stat.S_IFSOCK: "socket", stat.S_IFBLK: "block device"}


def _kind(path: Path, *, follow: bool) -> int:
    """The type of what is there; 0 = nothing."""
    try:
        return stat.S_IFMT(os.stat(path, follow_symlinks=follow).st_mode)
    except OSError:
        return 0
