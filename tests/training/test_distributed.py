"""Several processes: who is missing is named; two processes do what one does."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.training.distributed import Place, detect, parse, roll_call
from tests.children import environment
from tests.cli import tools
from tests.training.processes import MESHES, ROOT, command, corpus, read


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def meet(ranks, count, limit):
    """Verdicts of these ranks' roll calls, and the seconds they took."""
    address, out = f"127.0.0.1:{free_port()}", {}

    def one(rank):
        began = time.monotonic()
        try:
            roll_call(Place(coordinator=address, count=count, rank=rank), limit)
            out[rank] = ("", time.monotonic() - began)
        except UserError as error:
            out[rank] = (str(error), time.monotonic() - began)

    threads = [threading.Thread(target=one, args=(r,)) for r in ranks]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


def test_all_present():
    assert {r: why for r, (why, _) in meet([0, 1, 2], 3, 20).items()} == {0: "", 1: "", 2: ""}


def test_the_missing_are_named_in_time():
    out = meet([0, 2], 4, 2)
    for why, seconds in out.values():
        assert "2 of 4 processes did not start within 2 s: process 1, 3" in why
        assert seconds < 8


def test_a_missing_coordinator_is_named():
    out = meet([1], 2, 0.5)
    assert "process 0" in out[1][0] and out[1][1] < 5


def test_the_roll_call_keeps_away_from_other_jobs():
    """JAX gives job n the port 61440 + n % 4096: neither another job's, nor past the last."""
    ports = [Place(coordinator=f"h:{p}", count=2, rank=0).meeting[1] for p in (61440, 65535, 1234)]
    assert ports == [57344, 61439, 5330]


def test_places_in_words():
    assert parse("host:123,4,2") == Place(coordinator="host:123", count=4, rank=2)
    for text in ("host,4,2", "host:1,4,4", "host:1,x,0", "nonsense", "host:1,4"):
        with pytest.raises(UserError):
            parse(text)


def test_no_cluster_is_said(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "OMPI", "PMI")):
            monkeypatch.delenv(name)
    assert detect() is None
    with pytest.raises(UserError, match="finds no cluster"):
        parse("auto")


def pair(argv, devices, status=0):
    """Two processes of one command, argv(rank); what they print."""
    port = free_port()
    place = lambda rank: (f"--distributed=127.0.0.1:{port},2,{rank}", "--start_limit=120")
    running = [
        subprocess.Popen(
            [*argv(rank), *place(rank)],
            env=environment(devices), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    ends = [p.communicate(timeout=300) for p in running]
    assert [p.returncode for p in running] == [status] * 2, ends
    return ends


def commanded(*argv):
    return [sys.executable, "-m", "ldd_jax", *argv]


def run_alone(text, workdir, steps):
    subprocess.run(command(text, workdir, steps), env=environment(1), cwd=ROOT, check=True,
                   timeout=300, capture_output=True)  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A text, and the losses and samples of one process with one device."""
    folder = tmp_path_factory.mktemp("one")
    text = corpus(folder)
    run_alone(text, folder / "run", 7)
    return text, *read(folder / "run"), json.loads((folder / "run" / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_two_processes_do_what_one_does(one, mesh, tmp_path):
    """Same losses, bound and samples on 2 processes x 4 devices and on 1 device; then 1 resumes."""
    text, losses, samples, summary = one
    two = tmp_path / "two"
    pair(lambda rank: command(text, two, 5, *MESHES[mesh]), devices=4)
    assert read(two)[0] == pytest.approx(losses[:5], abs=1e-5)
    # The checkpoint of eight devices goes on alone, to the same losses and the same samples.
    run_alone(text, two, 7)
    assert read(two)[0] == pytest.approx(losses, abs=1e-5)
    assert read(two)[1][-1] == samples[-1]
    again = json.loads((two / "summary.json").read_text())
    assert again["nelbo_nats_per_token"] == pytest.approx(summary["nelbo_nats_per_token"], abs=1e-5)


# What XLA's communication says while it connects, whose lines its threads may tear.
GLOO = {"Gloo", "Rank", "is", "connected", "to", "peer", "ranks", "Expected", "number", "of"}


@pytest.mark.slow
def test_two_processes_evaluate_and_sample_what_one_does(one, tmp_path):
    """Process 0 alone speaks and writes; a file that was begun is gone on with by both."""
    text, _, samples, summary = one
    run, output = text.parent / "run", tmp_path / "out.jsonl"
    how = (f"--workdir={run}", f"--output={output}")
    (first, _), (second, _) = pair(lambda rank: commanded("evaluate", *how), devices=2)
    (found,) = map(json.loads, output.read_text().splitlines())
    assert found["nelbo_nats_per_token"] == pytest.approx(summary["nelbo_nats_per_token"], abs=1e-5)
    assert f"{found['nelbo_nats_per_token']:.4f}" in first
    assert set(re.findall(r"[^\W\d]+", second)) <= GLOO
    for _ in range(2):
        pair(lambda rank: commanded("sample", *how), devices=2)
        lines = output.read_text().splitlines(keepends=True)
        assert "\n".join(json.loads(line)["text"] for line in lines) == samples[-1]
        output.write_text("".join(lines[:-1]))


@pytest.mark.slow
def test_two_processes_watch_and_compare_what_one_does(one, tmp_path):
    """`mechanism` and `bench`, which goes on where it was; process 0 alone speaks and writes."""
    run = one[0].parent / "run"
    watch = ("mechanism", f"--workdir={run}", "--steps=3", "--num_samples=4")
    compare = ("bench", f"--workdir={run}", "--steps=2,3", "--latents=carry", "--num_samples=4")
    tools.good(*watch, f"--output={tmp_path / 'one.jsonl'}")
    tools.good(*compare, f"--output={tmp_path / 'one'}")
    (told, _), (silent, _) = pair(
        lambda _: commanded(*watch, f"--output={tmp_path / 'two.jsonl'}"), devices=2
    )
    assert "early, middle, late" in told and "thirds" not in silent
    first, other = (json.loads((tmp_path / f"{n}.jsonl").read_text()) for n in ("one", "two"))
    assert first["counts"] == other["counts"]
    for name, curve in first["curves"].items():
        assert other["curves"][name] == pytest.approx(curve, abs=1e-4, nan_ok=True), name
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    lines = (tmp_path / "one" / "cells.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two" / "cells.jsonl").write_text("".join(lines[:-1]))  # one is left to do
    (told, _), (silent, _) = pair(
        lambda _: commanded(*compare, f"--output={tmp_path / 'two'}"), devices=2
    )
    assert "cells; table.md" in told and "cells" not in silent
    again = (tmp_path / "two" / "cells.jsonl").read_text().splitlines()
    assert len(again) == len(lines)
    assert json.loads(again[-1])["sample"] == json.loads(lines[-1])["sample"]


@pytest.mark.slow
def test_a_workdir_that_is_not_shared_is_refused_everywhere(tmp_path):
    """Two hosts that call folders of their own by one name, here by two."""
    text, mesh = corpus(tmp_path), "--config.mesh.data=2"
    own = lambda rank: command(text, tmp_path / f"own{rank}", 5, mesh)
    for _, err in pair(own, devices=1, status=2):
        assert "process 1 (" in err and "not one folder" in err, err[-2000:]
    assert not list((tmp_path / "own0").glob(".shared*")) and not (tmp_path / "own1").exists()
