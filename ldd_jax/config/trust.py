"""Which code of their own this user named for which workdir: kept where nobody else can write.

`ldd_jax/plugins` in XDG_STATE_HOME (else ~/.local/state) holds a file for every workdir that was
trained or imported with plugins here: its place, a random token that stands in the workdir's own
record as well, and the files. A workdir from elsewhere lacks the token, or the place, or both; what
its own record says is shown and never run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ldd_jax.core import reading, writing
from ldd_jax.core.private import home, private


@dataclasses.dataclass(frozen=True)
class Source:
    """Code of the user's own: a file by its real path, and what was in it.

    Attributes:
      path: of the file.
      sha256: of its bytes when it was run.
      module: dotted name, where it is part of a package and is imported; "" = the file is run.
    """

    path: str
    sha256: str
    module: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.module or Path(self.path).name


def sources(found: Any) -> list[Source]:
    """The sources of a record, which may be a stranger's.

    Raises:
      ValueError: for what is none.
    """
    good = isinstance(found, list) and all(
        isinstance(one, dict)
        and one.keys() == {"path", "sha256", "module"}
        and all(isinstance(value, str) for value in one.values())
        for one in found
    )
    if not good:
        raise ValueError("expected a list of path, sha256 and module")
    return [Source(**one) for one in found]


def folder() -> Path | None:
    """Where the records are; None if neither XDG_STATE_HOME nor the home is an absolute path."""
    place = home("XDG_STATE_HOME", ".local/state")
    return place / "plugins" if place else None


def _file(place: Path, workdir: Path) -> Path:
    return place / f"{hashlib.sha256(str(workdir).encode()).hexdigest()}.json"


def remember(workdir: Path, token: str, named: Iterable[Source]) -> bool:
    """Note what the user named for a workdir; False where there is no place that is theirs alone.

    Args:
      workdir: its real path.
      token: that of the workdir's record.
      named: the files.
    """
    chosen = folder()
    place = private(chosen) if chosen else None
    if place is None:
        return False
    record = {
        "workdir": str(workdir),
        "token": token,
        "plugins": [dataclasses.asdict(one) for one in named],
    }
    try:
        writing.write(_file(place, workdir), json.dumps(record, indent=1) + "\n", fresh=0o600)
    except OSError:
        return False
    return True


def recall(workdir: Path, token: str) -> list[Source] | None:
    """What the user named for the workdir at this place with this token; None = nothing is known.

    Args:
      workdir: its real path.
      token: that of the workdir's record.
    """
    chosen = folder()
    place = private(chosen) if chosen and chosen.is_dir() else None
    if place is None or not token:
        return None
    try:
        found = reading.read_json(_file(place, workdir))
        if found["workdir"] != str(workdir) or found["token"] != token:
            return None
        return sources(found["plugins"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
