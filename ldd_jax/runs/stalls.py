"""A run that makes no progress says where it stands, and ends if it shall."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback

import jax

from ldd_jax.core.checks import UNFINISHED, require
from ldd_jax.core.console import OUT, say

DEEPEST = 12  # frames of the main thread that are shown, the innermost last


class Stalls:
    """Looks after the main thread, from a thread of its own.

    A collective that one process never reaches holds all others for ever and raises nothing. Every
    process says for itself where it stands; together the lines show who is elsewhere.
    """

    def __init__(self, minutes: float, leave: bool):
        """`minutes` without progress are said, each time anew; 0 = never. `leave` ends the process.

        Raises:
          UserError: for a negative time, or `leave` without one.
        """
        require(minutes >= 0, f"--stall_limit={minutes:g}; it must be 0 (off) or more minutes")
        require(minutes > 0 or not leave, "--stall_exit needs --stall_limit above 0")
        self.limit, self.leave = 60 * minutes, leave
        self.doing, self.since = "starting", time.monotonic()
        self._said, self._over = 0, threading.Event()

    def begin(self) -> None:
        """Look from now on."""
        if self.limit:
            self.beat("starting")
            threading.Thread(target=self._look, name="stalls", daemon=True).start()

    def beat(self, doing: str) -> None:
        """The main thread gets on, and says with what."""
        self.doing, self.since, self._said = doing, time.monotonic(), 0

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(min(self.limit / 4, 5.0)):
            idle = time.monotonic() - self.since
            if idle < self.limit * (self._said + 1):
                continue
            self._said += 1
            frame = sys._current_frames().get(threading.main_thread().ident or 0)
            stack = "".join(traceback.format_stack(frame)[-DEEPEST:])
            say(
                f"ldd_jax: process {jax.process_index()} of {jax.process_count()} "
                f"({socket.gethostname()}) has made no progress for {idle / 60:.1f} min, since "
                f"{self.doing}; its main thread stands at\n{stack.rstrip()}",
                error=True,
            )
            if self.leave:
                say("ldd_jax: leaving (--stall_exit); the same command goes on", error=True)
                OUT.flush()
                os._exit(UNFINISHED)
