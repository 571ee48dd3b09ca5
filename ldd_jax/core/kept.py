"""Numbered folders, such as checkpoints: in a local folder, or worked on here and kept in a bucket.

In a bucket a folder is whole once its digests are there: they are written last, and what was begun
and not ended is passed over, and removed when newer ones are kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast

from ldd_jax.core import storage
from ldd_jax.core.buckets import Bucket
from ldd_jax.core.checks import is_whole

WHOLE = "digests.json"
Stay = Callable[[Sequence[int]], list[bool]]


@dataclasses.dataclass(frozen=True)
class Share:
    """Which of several processes this one is; `attempt` is theirs and no earlier ones'."""

    rank: int = 0
    count: int = 1
    attempt: int = 0
    patience: float = 600.0


class Kept:
    """Numbered folders, such as checkpoints, in a folder that a library works in.

    Attributes:
      local: where the library works.
      apart: every process works in a folder of its own.
    """

    apart = False

    def __init__(self, directory: Path):
        self.directory = self.local = directory

    def steps(self) -> list[int]:
        """Numbers of the folders that are whole as far as their place can tell, sorted."""
        return sorted(int(p.name) for p in self.directory.glob("*") if is_whole(p.name))

    def folder(self, step: int, parts: Collection[str] = ()) -> Path:
        """A local folder with (at least) these parts of a numbered one; empty = all."""
        del parts
        return self.directory / str(step)

    def publish(self, folder: Path, step: int, stay: Stay, share: Share) -> None:
        """What is written into `folder` shall be seen as number `step`, beside those that stay.

        Here the library itself does so.

        Args:
          folder: with its digests.
          step: the number.
          stay: which of the sorted numbers stay.
          share: which part of it this process has, where they work apart.
        """

    def copy(self, step: int, target: Path) -> None:
        """Keep a numbered folder's files in another folder as well, linked where that is possible.

        Raises:
          OSError: if that fails; one may have been deleted meanwhile.
        """
        shutil.copytree(self.directory / str(step), target, copy_function=_link)

    def move(self, step: int, target: Path) -> None:
        """Take a numbered folder away."""
        (self.directory / str(step)).rename(target)

    def drop(self, step: int) -> None:
        """Forget a folder that another process takes away."""


class _KeptInBucket(Kept):
    """Worked on in scratch; a folder in the bucket is whole once its digests are there.

    Several processes write one folder together: the first puts its files and the list of their
    digests there, the others what that list lacks and lists of their own, and the first joins them.
    """

    apart = True

    def __init__(self, directory: Bucket):
        super().__init__(cast(Path, directory))
        self.place, self.local = directory, storage.scratch()

    def steps(self) -> list[int]:
        names = [name.split("/") for name in self.place.below() if name.endswith("/" + WHOLE)]
        return sorted(int(n[0]) for n in names if len(n) == 2 and is_whole(n[0]))

    def folder(self, step: int, parts: Collection[str] = ()) -> Path:
        source, target = self.place / str(step), self.local / str(step)
        wanted = lambda name: not parts or "/" not in name or name.split("/")[0] in parts
        names = [n for n in source.below() if wanted(n) and not (target / n).exists()]
        source.download_some(target, names)
        return target

    def publish(self, folder: Path, step: int, stay: Stay, share: Share) -> None:
        """Upload it, and remove the numbered folders that do not stay, begun ones as well."""
        target = self.place / str(step)
        lists = [target / f".digests-{share.attempt}-{n}.json" for n in range(share.count)]
        mine = json.loads((folder / WHOLE).read_text())
        if share.rank:
            known = json.loads(_awaited(lists[0], share.patience))["sha256"]
            mine = {"sha256": {n: d for n, d in mine["sha256"].items() if n not in known}}
            target.upload(folder, list(mine["sha256"]))
            lists[share.rank].put(json.dumps(mine).encode())
            return
        storage.settle()
        if target.exists():
            target.remove_all()
        target.upload(folder, [n for n in Bucket.files(folder) if n != WHOLE])
        if share.count > 1:
            lists[0].put(json.dumps(mine).encode())
        for one in lists[1:]:
            mine["sha256"] |= json.loads(_awaited(one, share.patience))["sha256"]
        for one in lists[: share.count if share.count > 1 else 0]:
            one.unlink(missing_ok=True)
        (target / WHOLE).put((json.dumps(mine, indent=0) + "\n").encode())
        whole = self.steps()
        left = {n for n, on in zip(whole, stay(whole), strict=True) if on}
        begun = [p for p in self.place.iterdir() if is_whole(p.name)]
        for other in (p for p in begun if int(p.name) not in left and int(p.name) < whole[-1]):
            other.remove_all()

    def copy(self, step: int, target: Path) -> None:
        (self.place / str(step)).copy_to(cast(Bucket, target))

    def move(self, step: int, target: Path) -> None:
        source = self.place / str(step)
        source.copy_to(cast(Bucket, target))
        source.remove_all()
        self.drop(step)

    def drop(self, step: int) -> None:
        shutil.rmtree(self.local / str(step), ignore_errors=True)


def _awaited(place: Bucket, patience: float) -> bytes:
    """An object that another process is about to write."""
    until = time.monotonic() + patience
    while True:
        try:
            return place.read_bytes()
        except FileNotFoundError:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def kept(directory: Path) -> Kept:
    """The numbered folders of a directory."""
    place = storage.in_bucket(directory)
    return _KeptInBucket(place) if place else Kept(directory)
