"""What comes from files is shown harmless, in the terminal's encoding, and nobody has to listen."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys

import pytest

from ldd_jax.core.console import ERR, OUT, harmless, say

EVIL = "a\x1b]0;title\x07\u202e\x9b31m\r\ud800b\n\tc"


def printed(encoding, *lines, **options):
    """The bytes that a stream of this encoding gets, which refuses what it does not know."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    with contextlib.redirect_stdout(stream):
        say(*lines, **options)
    return stream.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_every_text_is_printed_in_every_encoding(encoding):
    for raw in (False, True):
        found = printed(encoding, EVIL, "\u6f22 \u00e9 \U0001f600", raw=raw).decode(encoding)
        assert found.startswith("a") and found.endswith("\n")
    assert printed("ascii", "\u6f22\u00e9!") == b"??!\n"
    assert printed("latin-1", "\u6f22\u00e9!") == b"?\xe9!\n"


def test_a_terminal_has_nothing_to_obey():
    text = printed("utf-8", EVIL).decode()
    assert all(c.isprintable() or c in "\n\t" for c in text) and "\r" not in text
    assert printed("utf-8", EVIL, raw=True).decode().startswith("a\x1b]0;title\x07\u202e")
    assert harmless("plain") == "plain" and harmless("\n\x7f") == "\u21b5\\u{7f}"


CHILD = """
import sys
from ldd_jax.core.console import ERR, OUT, say
for i in range(20000):
    say("a line", error={error})
    OUT.write("raw")
open({done!r}, "w").write("done")
"""


@pytest.mark.parametrize("error", [False, True])
def test_a_lost_reader_ends_nothing(error, tmp_path):
    done = tmp_path / "done"
    running = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(error=error, done=str(done))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE if error else None,
    )  # fmt: skip
    running.stdout.close()
    if error:
        running.stderr.close()
    assert running.wait(60) == 0 and done.read_text() == "done"


def test_a_full_disk_is_an_error():
    """Nobody listening is one thing, a result that is lost another."""
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        with pytest.raises(OSError, match="No space"):
            say("x" * 100_000)
        with contextlib.suppress(OSError):
            full.close()


def test_a_process_without_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody", error=True)
    say("nobody")
    assert not OUT.isatty() and not ERR.isatty()


def test_a_hung_up_terminal_ends_nothing():
    """Writing to a terminal whose other side is closed gives an input/output error."""
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal, contextlib.redirect_stdout(terminal):
        assert OUT.isatty()
        os.close(ours)
        say("nobody")
        say("nobody")
