"""The verify command reads lines problem|solution and prints two verdicts for each."""

from __future__ import annotations

import io

from tests.cli import tools


def verify(monkeypatch, text, *flags):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text), "utf-8"))
    return tools.call("verify", *flags)


def test_lines_in_verdicts_out(monkeypatch):
    text = b"86,28,13,31,96|86+28=114,31-13=18,114-18=96\n1,2,24|48/2=24\r\n4,6,24|\nnonsense\n\n"
    done = verify(monkeypatch, text)
    assert done.status == 0 and done.out == "1 1\n0 1\n0 0\n0 0\n0 0\n"
    done = verify(monkeypatch, b"0" * 16 + b"|1234341221434321\n", "--task=sudoku:size=4,givens=6")
    assert done.status == 0 and done.out.split()[0] == "1"


def test_bad_input_is_one_line_and_status_2(monkeypatch):
    for flag in ("--task=chess", "--task=sudoku:size=5", "--task=countdown:colour=1"):
        done = verify(monkeypatch, b"", flag)
        assert done.status == 2 and done.err.count("\n") == 1, done
    done = verify(monkeypatch, b"\xff\xfe\n")
    assert done.status == 2 and "UTF-8" in done.err
