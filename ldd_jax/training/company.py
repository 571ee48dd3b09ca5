"""The lines of the roll call stay open: who is gone is known at once, and said in one line.

A process that is killed closes its line; a host that falls silent is noticed by TCP's keepalive.
Process 0 hears all others and tells them. Who ends in good order says so first. Without this JAX
waits for its own heartbeat and then aborts with a trace of C++.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Mapping

from ldd_jax.core.checks import UNFINISHED
from ldd_jax.core.console import OUT, say
from ldd_jax.training.meeting import LONGEST, parse

GRACE = 5.0  # seconds in which this process may end with words of its own
BYE = b'{"bye": true}\n'


class Company:
    """The other processes, as this one hears of them.

    Attributes:
      gone: number of a process that ended without a word; None = none has.
    """

    def __init__(self, lines: Mapping[int, socket.socket], count: int, limit: float):
        """Listen from now on, in a thread of its own.

        Args:
          lines: open lines by the number of the process at their other end: to process 0, or on
            process 0 to all others.
          count: processes of the run.
          limit: seconds after which a silent host counts as gone.
        """
        self.lines, self.count = dict(lines), count
        self.gone: int | None = None
        self._heard = {rank: bytearray() for rank in self.lines}
        self._over = threading.Event()
        for line in self.lines.values():
            line.setblocking(True)
            _keep_alive(line, limit)
        threading.Thread(target=self._listen, name="company", daemon=True).start()

    def bye(self) -> None:
        """This process ends in good order; nobody is missed from now on."""
        self._over.set()
        self._tell(BYE)

    def missed(self, patience: float = 1.0) -> str:
        """Who is gone, in words; "" if nobody is known to be within `patience` seconds."""
        until = time.monotonic() + patience
        while self.gone is None and time.monotonic() < until and not self._over.is_set():
            time.sleep(0.05)
        if self.gone is None:
            return ""
        return (
            f"process {self.gone} of {self.count} is gone, without which nothing can be computed; "
            "the same command on every host goes on from the last checkpoint"
        )

    def leave(self) -> None:
        """End this process at once: JAX would wait for the one that is gone once more."""
        say(f"ldd_jax: {self.missed()}", error=True)
        OUT.flush()
        os._exit(UNFINISHED)

    def _tell(self, data: bytes) -> None:
        for line in list(self.lines.values()):
            with contextlib.suppress(OSError):
                line.sendall(data)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as waiting:
            for rank, line in self.lines.items():
                waiting.register(line, selectors.EVENT_READ, rank)
            while self.lines and self.gone is None:
                for key, _ in waiting.select():
                    if not self._read(key.data):
                        waiting.unregister(key.fileobj)
                        self.lines.pop(key.data).close()
        if self.gone is None or self._over.is_set():
            return
        self._tell(b'{"gone": %d}\n' % self.gone)
        if not self._over.wait(GRACE):
            self.leave()  # the main thread waits for the one that is gone, for ever

    def _read(self, rank: int) -> bool:
        """Whether the line to `rank` goes on."""
        heard = self._heard[rank]
        try:
            found = self.lines[rank].recv(LONGEST)
        except OSError:
            found = b""
        heard += found
        if self._over.is_set():
            return False
        if not found or len(heard) > LONGEST:
            self.gone = rank
            return False
        while b"\n" in heard:
            line, _, rest = bytes(heard).partition(b"\n")
            heard[:] = rest
            said = parse(line + b"\n")
            if said.get("bye") is True:
                return False
            if type(said.get("gone")) is int:
                self.gone = said["gone"]
                return False
        return True


def _keep_alive(line: socket.socket, limit: float) -> None:
    """Four questions within `limit` seconds, where the system knows how."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    quarter = max(1, int(limit / 4))
    for name, value in (("IDLE", quarter), ("INTVL", quarter), ("CNT", 3)):
        if (option := getattr(socket, f"TCP_KEEP{name}", None)) is not None:
            with contextlib.suppress(OSError):  # a line of another kind than TCP
                line.setsockopt(socket.IPPROTO_TCP, option, value)
