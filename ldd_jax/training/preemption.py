"""Asked to stop: SIGTERM or SIGINT on any process, answered by all of them at the same place."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

import jax

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """What was under way is given up, because the run was asked to stop; no error handler's."""


class Stop:
    """Whether this run was asked to stop; a context that holds the signal handlers.

    One process: the first signal is noted and answered at the next `check`, a second one acts at
    once as if nobody listened. Until `begin` there is nothing to save, and a signal raises where it
    meets the program. Many processes: SIGTERM is caught by JAX's coordination service, which tells
    all of them and lets them agree on a call of `check` that none has reached, without waiting.
    """

    def __init__(self):
        self.many = jax.process_count() > 1
        self.calls, self.begun, self.found = 0, False, False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            mine = (signal.SIGINT,) if self.many else SIGNALS
            self.before = {s: signal.signal(s, self._receive) for s in mine}
            # A terminal that is closed does not end the run, as under nohup.
            self.before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.many:
            os.kill(os.getpid(), signal.SIGTERM)  # the coordination service's own signal
            return
        self.__exit__()
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):  # nobody may be there to read it
            os.write(2, f"ldd_jax: {name}: stopping; once more: at once\n".encode())
        self.found = True
        if not self.begun:
            raise Stopped

    def begin(self) -> None:
        """From here on there is something to save."""
        self.begun = True

    def reached(self) -> bool:
        """Whether to stop here; all processes must ask equally often."""
        self.calls += 1
        if self.many and not self.found:
            from jax.experimental import multihost_utils

            self.found = multihost_utils.reached_preemption_sync_point(self.calls)
        return self.found

    def check(self) -> None:
        """Raise Stopped where `reached`."""
        if self.reached():
            raise Stopped
