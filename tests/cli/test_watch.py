"""`watch`: what it tells of a run, that it only looks, and what it does with a stranger's text."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import socket
import subprocess
import sys

import pytest

from ldd_jax.cli.main import main
from ldd_jax.report import chart, history, live, status
from tests.cli import tools
from tests.cli.test_refusals import listing, refused
from tests.cli.test_report import EVIL

BOUND = {
    "validation/nelbo_nats_per_token": 2.25,
    "validation/nelbo_se": 0.125,
    "validation/bound": True,
    "validation/exact": False,
    "validation/bounds": "the sampler that runs one pass per step with h = 0",
}
TRAINED = [
    {"step": 10, "train_loss": 3.5, "speed/tokens_per_second": 50.0},
    {"step": 20, "train_loss": 3.0, "speed/tokens_per_second": 100.0, "skipped": 2},
    {"step": 20, **BOUND},
    {"step": 30, "train_loss": None, "skipped": 1},
]


@pytest.fixture
def run(tmp_path):
    """A workdir as training leaves it after 30 of 50 updates of 2 x 16 tokens."""
    folder = tmp_path / "run"
    for name in ("20", "25", "30.orbax-checkpoint-tmp"):
        (folder / "checkpoints" / name).mkdir(parents=True)
    config = {
        "recipe": "method=mdlm",
        "data": {"length": 16},
        "training": {"num_steps": 50, "batch_size": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    torn = '{"step": 31, "train_lo'
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in TRAINED) + torn)
    drawn = [(10, "one"), (10, "two"), (20, "three\x1b[2J\nfour")]
    (folder / "training_samples.jsonl").write_text(
        "".join(json.dumps({"step": s, "text": t}) + "\n" for s, t in drawn)
    )
    (folder / "lock").write_text(f"process {os.getpid()} on {socket.gethostname()}")
    return folder


def finish(run):
    (run / "metrics.jsonl").write_text(json.dumps({"step": 50, "train_loss": 2.0}) + "\n")
    (run / "summary.json").write_text(json.dumps({"step": 50}))
    (run / "lock").write_text("")


def test_what_is_read(run):
    found = status.read(run)
    assert (found.step, found.steps, found.checkpoint, found.skipped) == (30, 50, 25, 3)
    assert found.rate == 100 and found.seconds_left == 20 * 32 / 100
    assert found.losses == [(10, 3.5), (20, 3.0)] and found.bounds == [(20, 2.25)]
    assert found.samples == [(10, ["one", "two"]), (20, ["three\x1b[2J\nfour"])]
    facts = dict(found.facts())
    assert facts["state"] == f"training (process {os.getpid()} on {socket.gethostname()})"
    assert facts["update"] == "30 of 50 (60 %)"
    assert facts["speed"] == "100 tokens/s, about 0:06 left"
    assert facts["skipped updates"] == "3"
    assert facts["evaluation"] == (
        "update 20: NELBO 2.2500 +- 0.1250 nats/token, an upper bound for the sampler that runs "
        "one pass per step with h = 0"
    )


@pytest.mark.parametrize(
    "lock, state",
    [
        ("", "not running"),
        (f"process 4194304999 on {socket.gethostname()}", "not running"),  # no such process
        ("process 7 on another-host", "training (process 7 on another-host)"),
    ],
)
def test_whether_it_runs(run, lock, state):
    (run / "lock").write_text(lock)
    assert status.read(run).state.startswith(state)


def test_a_run_of_another_kind_and_one_that_has_not_begun(run):
    (run / "metrics.jsonl").write_text(
        json.dumps({"step": 4, "validation/elbo": 1.5, "validation/elbo_se": 0.25}) + "\n"
    )
    assert dict(status.read(run).facts())["evaluation"] == "update 4: elbo 1.5000 +- 0.2500"
    for name in ("metrics.jsonl", "training_samples.jsonl", "lock"):
        (run / name).unlink()
    for folder in (run / "checkpoints").iterdir():
        folder.rmdir()
    found = status.read(run)
    assert (found.step, found.checkpoint, found.rate) == (0, None, None)
    assert live.lines(found, 80)[-1].startswith("skipped updates")


def test_a_longer_run_than_the_finished_one(run):
    finish(run)
    assert status.read(run).state == "finished"
    config = json.loads((run / "config.json").read_text())
    config["training"]["num_steps"] = 60
    (run / "config.json").write_text(json.dumps(config))
    assert not status.read(run).finished


def test_the_chart():
    points = [(0, 9.0), (1, 4.0), (2, 3.0), (4, 1.4), (4, 1.0)]
    assert chart.draw([(".", points), ("o", [(2, 2.0)])], width=15, height=4) == [
        "4.000 |. .",  # a loss before any learning stands on the edge
        "      |    .",
        "      |    o",
        "1.000 |       .",  # two of one column: their mean
        "       0      4",
    ]
    assert chart.draw([(".", [])], width=40) == []
    (middle,) = [x for x in chart.draw([(".", [(7, 2.0)])], width=20, height=3) if "." in x[7:]]
    assert middle == "      |."
    wide = chart.draw([(".", [(i, float(i % 7)) for i in range(999)])], width=60)
    assert len(wide) == 11 and max(map(len, wide)) == 60


def test_many_samples_are_thinned(run):
    every = [(step, ["x" * 1000] * 5) for step in range(100)]
    shown = history.chosen(every)
    assert len(shown) == history.TIMES and shown[0][0] == 0 and shown[-1][0] == 99
    assert {len(texts) for _, texts in shown} == {history.EACH}
    assert {len(t) for _, texts in shown for t in texts} == {history.LONGEST}
    assert history.chosen([]) == [] and history.chosen(every[:1])[0][0] == 0


def test_a_terminal_obeys_nothing_and_no_line_breaks(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    (run / "config.json").write_text(
        (run / "config.json").read_text().replace("method=mdlm", "\\u001b]0;x\\u0007" + "w" * 90)
    )
    out = tools.good("watch", f"--workdir={run}", "--once").out
    assert "\x1b" not in out and "\x07" not in out and "\u241b]0;x" in out
    assert max(map(len, out.splitlines())) <= 40
    assert "samples at update 20" in out and "'three\\x1b[2J\\nfour'" in out


def test_a_terminal_that_is_painted_in_place(run, monkeypatch):
    """Its own sequences are the only ones, and no view is higher than the terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "8")
    (run / "config.json").write_text(
        (run / "config.json").read_text().replace("mdlm", "\\u001b]0;x\\u0007")
    )
    out = io.StringIO()
    out.isatty = lambda: True
    with looks(monkeypatch, lambda: finish(run)), contextlib.redirect_stdout(out):
        assert main(["watch", f"--workdir={run}"]) == 0
    assert re.findall("\x1b[^A-Zm\\]]*.", out.getvalue()) == ["\x1b[J", "\x1b[7F", "\x1b[J"]
    assert "finished" in out.getvalue()


def test_it_only_looks(run):
    """A run that holds its lock keeps it; no file of the workdir is touched."""
    before = listing(run)
    with (run / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tools.good("watch", f"--workdir={run}", "--once")
        tools.good("watch", f"--workdir={run}", "--once", f"--page={run.parent / 'page.html'}")
    assert listing(run) == before


def test_it_needs_no_jax(run):
    code = (
        "import sys; from ldd_jax.cli.main import main; "
        f"status = main(['watch', '--once', '--workdir={run}']); "
        "sys.exit(status or 'jax' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tools.ROOT).returncode == 0


@contextlib.contextmanager
def looks(monkeypatch, *between):
    """Calls `between` one after the other instead of waiting; the test fails if it waits more."""
    todo = list(between)
    monkeypatch.setattr("time.sleep", lambda seconds: todo.pop(0)())
    yield
    assert not todo


def test_it_follows_a_run_to_its_end(run, monkeypatch):
    with looks(monkeypatch, lambda: None, lambda: finish(run)):
        out = tools.good("watch", f"--workdir={run}").out
    assert re.findall(r"^update +(.*)$", out, re.M) == ["30 of 50 (60 %)", "50 of 50 (100 %)"]


def test_ctrl_c_is_how_one_stops(run, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    with looks(monkeypatch, stop):
        assert tools.good("watch", f"--workdir={run}").err == ""


def test_the_page(run, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    with (run / "training_samples.jsonl").open("a") as file:
        file.write(json.dumps({"step": 30, "text": EVIL}) + "\n")
    seen = []

    def look():
        seen.append(page.read_text())

    with looks(monkeypatch, look, lambda: finish(run)):
        tools.good("watch", f"--workdir={run}", f"--page={page}", "--every=2")
    (before,), after = seen, page.read_text()
    assert '<meta http-equiv="refresh" content="2">' in before and "refresh" not in after
    assert "30 of 50" in before and "50 of 50" in after
    assert before.count("data:image/png") == 2  # curves and speed
    assert "<tr><td>20</td><td>NELBO 2.2500 +- 0.1250" in before
    assert "default-src 'none'" in before and "<script" not in before and "<img src=x" not in before
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", before)
    assert "onerror" in before  # the text is there, as text


@pytest.mark.parametrize(
    "flags, why",
    [
        (("--workdir=nowhere",), "nowhere is not a workdir (no config.json)"),
        ((), "--workdir is missing"),
        (("--workdir=bad",), "is not valid JSON"),
        (("--workdir=other",), "is no config of this library"),
        (("--workdir=run", "--every=0"), "--every=0.0; 0.1 to 3600 seconds"),
        (("--workdir=run", "--page=no/page.html"), "/no does not exist"),
        (("--workdir=run", "--page="), "--page is missing its value"),
    ],
)
def test_refusals(run, monkeypatch, flags, why):
    for name, text in (("bad", "{"), ("other", "[1]")):
        (run.parent / name).mkdir()
        (run.parent / name / "config.json").write_text(text)
    monkeypatch.chdir(run.parent)
    refused(tools.call("watch", "--once", *flags), why)
