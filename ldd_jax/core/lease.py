"""One run a workdir: a lock of the file system that dies with its process, or a lease in a bucket.

A lease is an object that names its holder, and that the holder writes anew every `BEAT` seconds.
One that has not changed for `STALE` seconds, as the newcomer's own clock counts them, is taken
over, and so is at once that of a process of this machine that has ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ldd_jax.core import storage, writing
from ldd_jax.core.buckets import Bucket
from ldd_jax.core.checks import RunError, UserError, is_whole
from ldd_jax.core.console import say

BEAT, STALE = 10.0, 60.0  # seconds
# What flock gives where it is not to be had, such as on Lustre without -o flock.
LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_HELD: dict[Path, _Lease] = {}


def hold(path: Path, held: contextlib.ExitStack) -> None:
    """Hold the lock in the file `path`; while it is held it names the process.

    Args:
      path: in the folder that is locked.
      held: gives the lock back when it is closed.

    Raises:
      UserError: if another run holds it.
      OSError: if it cannot be written.
    """
    place = storage.in_bucket(path)
    if place is None:
        _flock(path, held)
        return
    lease = _Lease(place)
    lease.take()
    _HELD[path] = lease
    held.callback(_HELD.pop, path, None)
    held.callback(lease.end)
    threading.Thread(target=lease.beat, name="lease", daemon=True).start()


def check(folder: Path) -> None:
    """Make sure, before a checkpoint in it is replaced, that a folder is still this run's.

    Raises:
      RunError: if another run has taken it over.
    """
    for path, lease in list(_HELD.items()):
        if path.parent == folder:
            lease.check()


def name() -> str:
    """What a lock says of this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _refusal(folder: Any, holder: str) -> UserError:
    return UserError(
        f"{folder} is in use by another run ({holder}); wait for it, end it, or give another "
        "--workdir"
    )


def _flock(path: Path, held: contextlib.ExitStack) -> None:
    import fcntl

    stream = held.enter_context(writing.append(path, read=True))
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.seek(0)
        raise _refusal(path.parent, stream.read().strip() or "another process") from error
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        say(
            f"{path.parent} is on a file system without locks ({error.strerror}): nothing keeps a "
            "second run out of it"
        )
    held.callback(stream.truncate, 0)
    stream.truncate(0)
    stream.write(name())
    stream.flush()


class _Lease:
    def __init__(self, place: Bucket):
        self.place, self.token, self.beats = place, secrets.token_hex(8), 0
        self.over = threading.Event()

    def _text(self) -> bytes:
        self.beats += 1
        facts = {"token": self.token, "beats": self.beats, "machine": _machine()}
        return f"{name()}\n{json.dumps(facts)}\n".encode()

    def _found(self) -> bytes:
        try:
            return self.place.read_bytes()
        except FileNotFoundError:
            return b""

    def _mine(self, found: bytes) -> bool:
        return f'"{self.token}"'.encode() in found

    def take(self) -> None:
        """Become the holder, or refuse."""
        found = self._found()
        holder = _holder(found)
        if holder:
            if not _ended(found):
                say(
                    f"{self.place.parent} is held by {holder}; looking for {STALE:g} s whether it "
                    "is still there"
                )
                until = time.monotonic() + STALE
                while time.monotonic() < until:
                    time.sleep(min(BEAT, STALE) / 4)
                    now = self._found()
                    if now and now != found:
                        raise _refusal(self.place.parent, holder)
                    if not now:
                        break
            if self._found() not in (found, b""):
                raise _refusal(self.place.parent, holder)
            say(f"{self.place.parent} was held by {holder}, which is gone; taken over")
            self.place.unlink(missing_ok=True)
        elif self.place.is_file() and not self._found():  # of a folder that was copied
            self.place.unlink(missing_ok=True)
        try:
            self.place.put(self._text(), new=True)
        except OSError as error:
            now = self._found()
            if not now:
                raise
            if not self._mine(now):
                raise _refusal(self.place.parent, _holder(now)) from error

    def beat(self) -> None:
        """Say again and again that the holder is there."""
        while not self.over.wait(BEAT):
            with contextlib.suppress(OSError):  # the next beat tries again
                if not self._mine(self._found()):
                    storage.forsake(self.place.parent)
                    return
                self.place.put(self._text())

    def check(self) -> None:
        """Raise if it is another's."""
        if not self._mine(found := self._found()):
            storage.forsake(self.place.parent)
            other = _holder(found) or "nobody"
            raise RunError(
                f"{self.place.parent} has been taken over by another run ({other}); this one "
                "writes no more"
            )

    def end(self) -> None:
        """Give it back."""
        self.over.set()
        with contextlib.suppress(OSError):
            if self._mine(self._found()):
                self.place.unlink(missing_ok=True)


def _holder(found: bytes) -> str:
    return found.decode("utf-8", "replace").split("\n")[0].strip()


def _machine() -> str:
    """What two processes share that know each other's numbers; "" = it is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _ended(found: bytes) -> bool:
    """Whether a lease is that of a process of this machine that is gone."""
    try:
        words, facts, *_ = found.decode().split("\n")
        number, machine = words.split()[1], json.loads(facts)["machine"]
    except (ValueError, KeyError, IndexError, TypeError):
        return False
    if not machine or machine != _machine() or not is_whole(number, 1):
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # somebody else's, and alive
    return int(number) == os.getpid() and not any(
        f'"{lease.token}"'.encode() in found for lease in _HELD.values()
    )
