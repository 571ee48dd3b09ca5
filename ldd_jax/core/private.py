"""Folders and files that nobody but this user can have changed, and where programs keep theirs."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def home(variable: str, below: str) -> Path | None:
    """The user's folder of a kind, as the XDG standard has it; None if there is no absolute path.

    Args:
      variable: that names it, such as XDG_CACHE_HOME.
      below: where it is otherwise, below the home folder, such as .cache.
    """
    base = os.environ.get(variable, "")
    place = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / below
    return place / "ldd_jax" if place.is_absolute() else None


def private(path: Path) -> Path | None:
    """The real path of a folder that is ours alone, made if absent (mode 0700); None if it is not.

    Ours alone: it and all folders above it belong to this user or to root, and none of them may be
    written by others (but for folders like /tmp, where nobody can rename what is not theirs).
    """
    try:
        for part in reversed((path, *path.parents)):
            if not part.exists():
                part.mkdir(mode=0o700, exist_ok=True)
        path = path.resolve(strict=True)
        own = path.lstat()
        if not stat.S_ISDIR(own.st_mode) or not ours(path):
            return None
        if stat.S_IMODE(own.st_mode) != 0o700:
            path.chmod(0o700)
        return path if os.access(path, os.R_OK | os.W_OK | os.X_OK) else None
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError
        return None


def ours(path: Path) -> bool:
    """Whether what is at a real path is this user's, and nobody else can write or replace it.

    Raises:
      OSError: if there is nothing.
    """
    own = path.lstat()
    if own.st_uid != os.geteuid() or own.st_mode & 0o022:
        return False
    for above in path.parents:
        found = above.lstat()
        others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or others:
            return False
    return True
