"""The player in a terminal and as a GIF; model output never steers either."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from ldd_jax.report import gif, terminal
from ldd_jax.report.frames import frames, harmless, wrapped
from tests.cli import tools

EVIL = "\x1b]0;owned\x07\x9b2J\u202eab\r\n\x7f\u2028"
PICTURES = r"␛]0;owned␇\u{9b}2J\u{202e}ab␍↵\u{7f}\u{2028}"
PATH = {
    "tokens": [["[MASK]"] * 3, [EVIL, "[MASK]", "[MASK]"], [EVIL, "b", "[MASK]"], [EVIL, "b", ""]],
    "entropy": [[3.0, 1.5, 0.0], [None, 0.5, 9.0]],
    "norm": [[1.0, 2.0, 0.5], [1.0, 2.0, 0.5]],
}


def played(runs, colours):
    stream = io.StringIO()
    terminal.play(runs, stream, 0, colours)
    return stream.getvalue()


def test_text_is_made_harmless():
    assert harmless(EVIL) == PICTURES
    assert harmless("a\n\tb\x1b", "\n\t") == "a\n\tb␛"
    assert harmless("Größe [x] 漢字 e\u0301 ↵") == "Größe [x] 漢字 e\u0301 ↵"


def test_frames_say_what_changed():
    first, second, third, last = frames("run\x1b", PATH)
    assert first.title == "run␛: step 0 of 3, 0 changed, 3 masked"
    assert third.title.endswith("step 2 of 3, 1 changed, 1 masked")
    assert [c.text for c in last.cells] == [PICTURES, "b", "∅"]
    # What the network saw before the step stands with what the step made of it.
    assert [c.entropy for c in second.cells] == [3.0, 1.5, 0.0]
    assert [c.entropy for c in first.cells] == [c.norm for c in last.cells] == [None] * 3


def test_plain_lines_without_a_terminal():
    lines = played([frames("run", PATH)], colours=False).splitlines()
    assert lines[0].startswith("run: step 0 of 3")
    expected = ["···", f"{PICTURES}··", f"{PICTURES}b·", f"{PICTURES}b∅"]
    assert [line[6:] for line in lines[1:]] == expected
    same = PATH | {"tokens": PATH["tokens"][:2] + PATH["tokens"][1:2]}
    lines = played([frames("run", same)], colours=False).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]


def test_a_terminal_gets_our_codes_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "40")
    both = [frames("one", PATH), frames("two", {**PATH, "tokens": PATH["tokens"][:2]})]
    text = played(both, colours=True)
    screens = re.split(r"(?:\x1b\[(\d+)F)?\x1b\[J", text)
    ups, shown = screens[3::2], screens[2::2]
    # Every picture is taken back by as many lines as it had.
    assert len(shown) == 4 and list(map(int, ups)) == [s.count("\n") for s in shown[:-1]]
    bare = re.sub(r"\x1b\[[\d;]*m", "", "".join(shown))
    assert not re.search(r"[^\n\x20-\x7e\u00a0-\uffff]|\u202e|\u2028", bare)
    assert "\x1b[1;4;30;48;5;75m" + PICTURES in shown[1]  # unsure, and changed
    assert all(len(line) <= 20 for line in bare.splitlines() if PICTURES not in line)
    monkeypatch.setenv("LINES", "3")
    assert max(s.count("\n") for s in re.split(r"\x1b\[J", played(both, colours=True))) == 2


def test_lines_break_by_columns():
    path = {"tokens": [["漢", "ab", "c", "e\u0301", "toolong"]], "entropy": []}
    lines = wrapped(frames("", path)[0].cells, 4)
    assert [[c.text for c in line] for line in lines] == [
        ["漢", "ab"],
        ["c", "e\u0301"],
        ["toolong"],
    ]


def test_gif(tmp_path):
    path = PATH | {"tokens": [[t.replace(EVIL, "a") or "c" for t in s] for s in PATH["tokens"]]}
    runs = [frames("run", path), frames("two", path | {"norm": []})]
    assert gif.write(runs, tmp_path / "x.gif", 0.1) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["x.gif"]
    image = Image.open(tmp_path / "x.gif")
    assert (image.n_frames, image.info["duration"], image.info["loop"]) == (4, 100, 0)
    painter = gif.Painter(runs)
    picture = painter.picture(1)
    assert image.size == picture.size
    top, left = gif.MARGIN + painter.line, lambda i: gif.MARGIN + i * painter.step
    corner = [picture.getpixel((left(i), top)) for i in range(3)]
    half = tuple(round((a + b) / 2) for a, b in zip(gif.SURE, gif.UNSURE))
    assert corner == [gif.UNSURE, half, gif.SURE]
    under = [picture.getpixel((left(i) + 3, top + painter.line - 3)) for i in range(2)]
    assert under[0] == gif.RED != under[1]
    bar = gif.MARGIN + painter.high[0]  # 1, 2 and 0.5 of 2: half, full, a quarter high
    wide = (picture.size[0] - 2 * gif.MARGIN) / 3
    tall = [
        sum(
            picture.getpixel((round(gif.MARGIN + (i + 0.4) * wide), bar - y)) == gif.VIOLET
            for y in range(gif.BAR + 4)
        )
        for i in range(3)
    ]
    assert [abs(t - gif.BAR * s) < 2 for t, s in zip(tall, (0.5, 1, 0.25))] == [True] * 3


@pytest.mark.slow
def test_the_command(trained, tmp_path):
    both = [f"--workdir={trained(m)}" for m in ("mdlm", "lddm_m")]
    run = tools.good("play", *both, "--steps=5", "--row=1", "--seed=3")
    titles = [line for line in run.out.splitlines() if "step 0 of 6" in line]
    assert [t.split(":")[0] for t in titles] == ["mdlm", "lddm_m"]
    tools.good("mechanism", both[1], "--steps=5", "--num_samples=2", "--seed=3",
               f"--output={tmp_path / 'm.jsonl'}")  # fmt: skip
    path = tools.json_lines(tmp_path / "m.jsonl")[0]["paths"][1]
    last = run.out.splitlines()[-1]
    assert last[6:] == "".join(harmless(t) for t in path["tokens"][-1])
    out = tmp_path / "x.gif"
    run = tools.good("play", both[1], "--steps=5", "--resets=0,1", f"--gif={out}")
    assert f"pictures written to {out}" in run.out and Image.open(out).n_frames > 2


@pytest.mark.parametrize(
    "flags, why",
    [
        (("--row=4",), "--row=4; 0 to 3"),
        (("--delay=-1",), "--delay=-1.0"),
        (("--delay=nan",), "--delay=nan"),
        (("--resets=2",), "no latent"),
        (("--resets=x",), "--resets=x"),
        (("--steps=0",), "at least 1"),
        (("--gif=/nowhere/x.gif",), "--gif=/nowhere/x.gif"),
    ],
)
def test_refusals(trained, flags, why):
    run = tools.call("play", f"--workdir={trained('mdlm')}", *flags)
    assert run.status == 2 and why in run.err and len(run.err.splitlines()) == 1, run
