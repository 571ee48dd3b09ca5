"""A run whose only place is an S3 bucket: moto's server, which the test starts on this machine.

Part of `make extras`: needs s3fs and moto.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ldd_jax.core.storage import at
from tests.children import environment
from tests.cli import tools
from tests.cli.conftest import compile_once, text, train_flags, trained  # noqa: F401
from tests.training.processes import ROOT, command, corpus, read
from tests.training.test_distributed import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
RUN = "s3://runs/one"
FLAGS = ("--config.training.log_every=1", "--config.training.checkpoint_every=2")


@pytest.fixture(scope="module")
def store():
    """The server's address, in the environment of this process and of those it starts."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    patch = pytest.MonkeyPatch()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
        patch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="runs")
    yield address
    patch.undo()
    server.stop()


def kill_when(argv, ready):
    running = tools.start(*argv)
    until = time.monotonic() + 240
    while not ready():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until, "the run does not get on"
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    running.communicate()


def test_a_killed_run_ends_like_one_in_a_folder(store, text, train_flags, tmp_path):  # noqa: F811
    given = (tools.recipe("mdlm"), *train_flags, *FLAGS)
    local = tmp_path / "local"
    tools.good("train", f"--workdir={local}", *given)
    far, kept = ("train", f"--workdir={RUN}", *given), at(RUN) / "checkpoints"
    kill_when(far, lambda: (kept / "2" / "meta").exists())  # begins to write
    kill_when(far, lambda: (kept / "6" / "digests.json").exists() or (kept / "8").exists())
    again = tools.process(*far)
    assert again.status == 0, again
    assert "process" in again.out and "is gone; taken over" in again.out, again.out
    copy = at(RUN).download(tmp_path / "copy")
    assert tools.curve(copy) == tools.curve(local)
    assert sorted(p.name for p in (copy / "checkpoints").iterdir()) == ["10", "12"]
    for name in ("params", "ema", "optim"):
        mine, other = (f / "checkpoints" / "12" / name for f in (copy, local))
        assert {p.name for p in mine.rglob("*")} and mine.is_dir() and other.is_dir()
    sample = ("sample", "--num_samples=2", "--steps=4")
    tools.good(*sample, f"--workdir={RUN}", "--output=s3://runs/s.jsonl")
    tools.good(*sample, f"--workdir={local}", f"--output={tmp_path / 's.jsonl'}")
    assert at("s3://runs/s.jsonl").read_bytes() == (tmp_path / "s.jsonl").read_bytes()
    evaluate = [tools.good("evaluate", f"--workdir={w}").out for w in (RUN, local)]
    assert evaluate[0] == evaluate[1]


def test_shards_export_and_import(store, text, tmp_path, train_flags):  # noqa: F811
    at("s3://runs/text/a.txt").put(text.read_bytes())
    made = ("prepare", "--config=text", "--config.data.split=line", "--config.data.length=16")
    tools.good(*made, "--config.data.path=s3://runs/text/*.txt", "--output=s3://runs/shards")
    given = [f for f in train_flags if "config.data.path" not in f]
    place = ("--workdir=s3://runs/two", "--config.data.path=s3://runs/shards")
    tools.good("train", tools.recipe("mdlm"), *given, *place)
    tools.good("export", "--workdir=s3://runs/two", "--output=s3://runs/out")
    said = tools.good("import", "s3://runs/out", "--workdir=s3://runs/three").out
    assert "tensors come back byte for byte" in said
    tools.good("report", "--workdir=s3://runs/two")
    assert "mdlm" in tools.good("watch", "--once", "--workdir=s3://runs/two").out


def test_two_processes_keep_their_checkpoints_together(store, tmp_path):
    words, address = corpus(tmp_path), f"127.0.0.1:{free_port()}"
    more = ("--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.training.checkpoint_every=4")
    for steps in (5, 8):  # then from a checkpoint
        run = lambda *flags, steps=steps: subprocess.Popen(
            command(words, "s3://runs/pair", steps, *more, *flags),
            env=environment(2), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        pair = [run(f"--distributed={address},2,{rank}") for rank in (0, 1)]
        said = [one.communicate(timeout=400) for one in pair]
        assert [one.returncode for one in pair] == [0, 0], said
    alone = subprocess.run(
        command(words, tmp_path / "alone", 8, *more), env=environment(4), cwd=ROOT, timeout=400
    )
    assert alone.returncode == 0
    copy = at("s3://runs/pair").download(tmp_path / "copy")
    assert sorted(p.name for p in (copy / "checkpoints").iterdir()) == ["5", "8"]
    (mine, samples), (other, wanted) = read(copy), read(tmp_path / "alone")
    assert mine == pytest.approx(other, abs=1e-5) and samples[-1] == wanted[-1]
    assert tools.good("evaluate", "--workdir=s3://runs/pair").out


def test_what_a_bucket_says_no_to_is_one_line(store, text, train_flags, monkeypatch):  # noqa: F811
    given = (tools.recipe("mdlm"), *train_flags)
    missing = tools.call("train", "--workdir=s3://nowhere/r", *given)
    assert missing.status == 2 and missing.err.count("\n") == 1, missing
    assert tools.call("evaluate", "--workdir=s3://runs/none").status == 2
    gone = tools.process(
        "evaluate", f"--workdir={RUN}", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    )
    assert gone.status in (1, 2) and gone.err.count("\n") == 1, gone
    assert gone.err.startswith(f"ldd_jax: {RUN}"), gone
