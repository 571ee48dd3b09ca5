"""Where the time of a run goes, restarts included: the share that trains is its goodput."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ldd_jax.core.checks import is_number

# start: reading, compiling and the first updates of a process. restart: from the last checkpoint of
# a process that did not come to its end to the next process, lost updates and waiting alike.
KINDS = ("steps", "data", "evaluate", "sample", "save", "start", "restart")


class Goodput:
    """Seconds by what they were spent on, of this process and of those before it.

    Args:
      saved: `saved()` of the checkpoint that the run goes on from; one that makes no
        sense is none, since only the account of time hangs on it.
      ended: whether the run had come to its end there, so that nobody waited for it since.
    """

    def __init__(self, saved: Any = None, *, ended: bool = False):
        before, at = _read(saved)
        self.seconds = {kind: before.get(kind, 0.0) for kind in KINDS}
        if at is not None and not ended:
            self.seconds["restart"] += max(time.time() - at, 0.0)
        self.now, self.since = "start", time.monotonic()

    def turn(self, kind: str) -> None:
        """What was done until now is over; from now on it is `kind`."""
        moment = time.monotonic()
        self.seconds[self.now] += moment - self.since
        self.now, self.since = kind, moment

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        self.turn(self.now)
        return {"seconds": dict(self.seconds), "at": time.time()}

    def read(self) -> dict[str, float]:
        """Shares since the first start: of updates, and of what a run loses most by."""
        self.turn(self.now)
        total = sum(self.seconds.values())
        if not total:
            return {}
        share = {kind: spent / total for kind, spent in self.seconds.items()}
        return {
            "speed/goodput": share["steps"],
            "speed/share_data": share["data"],
            "speed/share_restarts": share["restart"] + share["start"],
        }


def _read(saved: Any) -> tuple[dict[str, float], float | None]:
    """Seconds by kind and when they were kept; none of both for a record that makes no sense."""
    saved = saved if isinstance(saved, Mapping) else {}
    seconds, at = saved.get("seconds"), saved.get("at", "")
    good = lambda value: is_number(value) and value >= 0
    if not (good(at) and isinstance(seconds, Mapping) and all(map(good, seconds.values()))):
        return {}, None
    return {kind: float(spent) for kind, spent in seconds.items()}, float(at)
