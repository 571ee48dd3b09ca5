"""Several processes: who is missing is named; two processes do what one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.training.distributed import Place, detect, parse, roll_call

ROOT = Path(__file__).parents[2]
WORDS = [
    "the",
    "a",
    "list",
    "of",
    "value",
    "return",
    "function",
    "index",
    "module",
    "class",
    "object",
    "name",
]


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
    assert "process 0" in out[1][0]


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
    corpus = tmp_path / "words.txt"
    corpus.write_text("\n\n".join(" ".join(WORDS[(7 * i + j * j) % 12] for j in range(30))
                                  for i in range(200)))  # fmt: skip

    def command(workdir, steps, *more):
        return [
            sys.executable, "-m", "ldd_jax", "train", "--config=configs/text.py:method=lddm_m",
            f"--config.data.path={corpus}", "--config.data.split=paragraph",
            "--config.data.length=32", "--config.model.width=32", "--config.model.depth=2",
            "--config.training.batch_size=16", f"--config.training.num_steps={steps}",
            "--config.training.log_every=1", "--config.evaluation.draws=1",
            "--config.evaluation.max_sequences=64", "--config.sampling.num_steps=4",
            "--config.objective.tile=64", "--config.sampling.tile=32",
            "--config.optim.decay=constant",
            f"--workdir={workdir}", *more,
        ]  # fmt: skip

    def environment(devices):
        flags = f"--xla_force_host_platform_device_count={devices}"
        return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}

    def read(workdir):
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        losses = [line["train_loss"] for line in lines if "train_loss" in line]
        return losses, [line["samples"] for line in lines if "samples" in line]

    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run(command(one, 7), env=environment(1), cwd=ROOT, check=True, timeout=300,
                   capture_output=True)  # fmt: skip
    port = free_port()
    mesh = ("--config.mesh.data=4", "--config.mesh.fsdp=2")
    running = [
        subprocess.Popen(
            command(two, 5, *mesh, f"--distributed=127.0.0.1:{port},2,{rank}", "--start_limit=120"),
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
    subprocess.run(command(two, 7), env=environment(1), cwd=ROOT, check=True, timeout=300,
                   capture_output=True)  # fmt: skip
    assert read(two)[0] == pytest.approx(losses, abs=1e-5)
    assert read(two)[1][-1] == read(one)[1][-1]
