"""Several processes: who is missing is named; two processes do what one does."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.training.distributed import Place, detect, parse, roll_call
from tests.training.processes import MESH, ROOT, command, corpus, environment, read


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


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """Same losses, bound and samples on 2 processes x 4 devices and on 1 device; then 1 resumes."""
    text = corpus(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run(command(text, one, 7), env=environment(1), cwd=ROOT, check=True, timeout=300,
                   capture_output=True)  # fmt: skip
    port = free_port()
    place = lambda rank: (f"--distributed=127.0.0.1:{port},2,{rank}", "--start_limit=120")
    running = [
        subprocess.Popen(
            command(text, two, 5, *MESH, *place(rank)),
            env=environment(4), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    for p in running:
        out, err = p.communicate(timeout=300)
        assert p.returncode == 0, err[-2000:]
    losses, _ = read(one)
    assert read(two)[0] == pytest.approx(losses[:5], abs=1e-5)
    # The checkpoint of eight devices goes on alone, to the same losses and the same samples.
    subprocess.run(command(text, two, 7), env=environment(1), cwd=ROOT, check=True, timeout=300,
                   capture_output=True)  # fmt: skip
    assert read(two)[0] == pytest.approx(losses, abs=1e-5)
    assert read(two)[1][-1] == read(one)[1][-1]
