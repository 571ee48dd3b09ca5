"""Which checkpoints of a workdir are whole, and what becomes of those that are not.

All processes of a run ask together, each of its share of the files, and are told the same.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax

from ldd_jax.core import kept, reading
from ldd_jax.core.checks import UserError
from ldd_jax.core.console import say
from ldd_jax.training import digests, distributed

# 1 had no digests and said less of the run; it is still read.
FORMAT = 2
READABLE = (1, 2)
DAMAGED = "damaged"


@dataclasses.dataclass(frozen=True)
class Whole:
    """The checkpoints of a folder as they are found.

    directory: where they are for their reader. kept: the same, as files are got from it.
    """

    directory: Path
    kept: kept.Kept

    def steps(self) -> list[int]:
        """Numbers of the checkpoints, sorted, as process 0 finds them."""
        found: list[int] = json.loads(distributed.told(json.dumps(self.kept.steps()))[0])
        return found

    def fault(self, step: int, parts: Collection[str] = ()) -> str:
        """What the first process that finds something wrong with a checkpoint says; "" = nothing.

        Where each has a copy of its own, it checks all of that.

        Raises:
          UserError: for a format that this library cannot read.
        """
        rank, count = jax.process_index(), jax.process_count()
        own = self._fault(step, parts, *((0, 1) if self.kept.apart else (rank, count)))
        return next(filter(None, distributed.told(own)), "")

    def _fault(
        self, step: int, parts: Collection[str], rank: int, count: int, patience: float = 60.0
    ) -> str:
        """What is wrong with this share of a checkpoint; a network's file system may be late."""
        folder = self.kept.folder(step, parts)
        until = time.monotonic() + patience
        while rank and not folder.exists() and time.monotonic() < until:
            time.sleep(0.2)
        meta = record(folder)
        version = meta.get("format")
        newer = isinstance(version, int) and version > FORMAT
        if newer:
            raise UserError(
                f"checkpoint {step} in {self.directory.parent} has format {version}; this library "
                f"reads {READABLE[0]} to {READABLE[-1]}: use the version that wrote it, or later"
            )
        if version not in READABLE:
            return "its record (meta) is missing or damaged"
        for place, _, names in () if rank else os.walk(folder):  # Orbax would wait for a pipe
            for name in names:
                if not os.path.isfile(os.path.join(place, name)):
                    return f"{name} is no regular file"
        return digests.fault(folder, parts, rank, count) if version > 1 else ""

    def beyond(self, step: int) -> int | None:
        """The newest whole checkpoint if it is after `step`, else None; others are not read.

        A process finds that out alone: none knows yet whether all see one folder.
        """
        later = sorted((s for s in self.kept.steps() if s > step), reverse=True)
        return next((s for s in later if not self._fault(s, (), 0, 1)), None)

    def choose(self, parts: Collection[str], step: int | None, *, trusted: bool) -> int:
        """`step`, or the newest whose parts are whole; what is passed over is said.

        Args:
          parts: items that will be read.
          step: number of a checkpoint; None = the newest.
          trusted: a writer, that has looked at all when it began.

        Raises:
          UserError: for a number that is not there, or damage of all that might be taken.
        """
        have = sorted(self.steps(), reverse=True)
        if not have or step not in (None, *have):
            listed = ", ".join(map(str, sorted(have))) or "none"
            raise UserError(f"{self.directory.parent}: no checkpoint {step}; there are: {listed}")
        passed: list[str] = []
        for number in have if step is None else [step]:
            why = "" if trusted else self.fault(number, parts)
            if not why:
                for damage in passed:
                    _say(f"{damage}; checkpoint {number} is used")
                return number
            passed.append(f"checkpoint {number} in {self.directory.parent} is damaged ({why})")
        raise UserError("; ".join(passed))

    def set_aside(self) -> None:
        """Move damaged checkpoints that are newer than the newest whole one out of the way."""
        steps = self.steps()
        damaged = {}
        for step in sorted(steps, reverse=True):
            why = self.fault(step)
            if not why:
                break
            damaged[step] = why
        if damaged and len(damaged) == len(steps):
            words = "; ".join(f"{s}: {why}" for s, why in damaged.items())
            raise UserError(
                f"none of the checkpoints in {self.directory} is whole ({words}); put a copy back, "
                "or give another --workdir"
            )
        place = self.directory.parent / DAMAGED
        for step, why in damaged.items():
            if not distributed.leader():
                self.kept.drop(step)
                continue
            place.mkdir(exist_ok=True)
            number = sum(1 for _ in place.glob(f"{step}.*"))
            self.kept.move(step, place / f"{step}.{number}")
            _say(f"checkpoint {step} is damaged ({why}); moved to {place / f'{step}.{number}'}")


def record(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint, read by this process alone; empty if it cannot be."""
    try:
        found = reading.read_json(folder / "meta" / "metadata")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _say(text: str) -> None:
    if jax.process_index() == 0:
        say(f"ldd_jax: {text}", error=True)
