"""The only way to a terminal: what it shows is harmless, in its encoding, and nobody has to listen.

Texts, names and configs may come from strangers and hold control characters; a terminal may know
ASCII alone; a pipe may lose its reader. None of these may steer a terminal or end a run.
"""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from typing import Any

NEWLINE = "\u21b5"
# Invisible, or able to steer what shows the text: controls, directions, separators.
UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# What a write to a closed pipe or a hung-up terminal gives.
_LOST = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET, errno.ESHUTDOWN)


def harmless(text: str, keep: str = "") -> str:
    r"""Text that a terminal shows and does not obey: control characters become pictures of them.

    C0 becomes U+2400 and on, a line feed U+21B5, everything else of `UNSAFE` its number, such as
    \u{202e}; what is in `keep` stays.
    """

    def one(letter: str) -> str:
        code = ord(letter)
        if letter in keep or unicodedata.category(letter) not in UNSAFE:
            return letter
        if letter == "\n":
            return NEWLINE
        return chr(0x2400 + code) if code < 32 else f"\\u{{{code:x}}}"

    return text if text.isprintable() and text.isascii() else "".join(map(one, text))


class Outlet:
    """`sys.stdout` or `sys.stderr`, whichever it is when something is written.

    Characters that its encoding lacks become question marks. When the reader has gone, what is
    written from then on goes nowhere, without an error, and `lost` is true.
    """

    def __init__(self, name: str):
        self.name, self.silent, self.lost = name, False, False

    @property
    def stream(self) -> Any:
        """None for a process that was started without one."""
        return getattr(sys, self.name)

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """As of a text stream, raw; nothing where another process speaks (`silent`)."""
        if self.silent:
            return 0
        known = text.encode(self.encoding, "replace").decode(self.encoding)
        return self._try(lambda: self.stream.write(known)) or 0

    def flush(self) -> None:
        """As of a text stream."""
        self._try(lambda: self.stream.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self.stream and self.stream.isatty())

    def fileno(self) -> int:
        """For the size of a terminal."""
        return self.stream.fileno()

    def _try(self, call: Any) -> Any:
        if self.stream is None:
            return None
        try:
            return call()
        except OSError as error:
            if error.errno not in _LOST:
                raise
            self._forget()
            return None

    def _forget(self) -> None:
        """Lead the stream nowhere: it holds what could not be written, and Python flushes it."""
        self.lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.stream.fileno())
        except (OSError, ValueError):  # no file behind it: nothing is flushed later
            pass
        finally:
            os.close(nowhere)


OUT, ERR = Outlet("stdout"), Outlet("stderr")


def say(*lines: object, error: bool = False, raw: bool = False) -> None:
    """Print lines, of which line feeds and tabs stay; `raw` = as they are, for a file or pipe."""
    outlet = ERR if error else OUT
    for line in lines:
        outlet.write((str(line) if raw else harmless(str(line), "\n\t")) + "\n")
    outlet.flush()
