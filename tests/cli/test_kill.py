"""SIGKILL at random moments, the same command again, and nothing can be told from the outcome."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from ldd_jax.config import experiment as experiments
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from tests.cli import tools

# The other tests of this folder leave optimisations out.
PRODUCTION = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
FLAGS = (
    "--config.training.num_steps=40",
    "--config.training.log_every=1",
    "--config.training.eval_every=10",
    "--config.training.sample_every=20",
    "--config.training.checkpoint_every=6",
)


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else -1


def kill_at(argv, workdir, ready, log):
    """Start the command, kill it as soon as ready(workdir); it must not have ended before."""
    with log.open("a") as stream:
        running = tools.start(*argv, env=PRODUCTION, stdout=stream, stderr=subprocess.STDOUT)
    until = time.monotonic() + 240
    while not ready(workdir):
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < until, "the run does not get on"
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL


def final_state(workdir):
    built = experiments.restore(workdir)
    like = states.abstract(built.model, built.update.optimizer, built.mesh)
    state, meta = Checkpoints(workdir, read_only=True).restore(like)
    return jax.device_get(state), meta


@pytest.mark.slow
def test_a_killed_run_ends_like_an_uninterrupted_one(text, tmp_path):
    """In tiles and microbatches; tests/faults/test_kills.py has the plain run of lddm_m."""
    method, extra = "lddm_u", ("--config.objective.tile=32", "--config.training.accumulate=2")
    given = (*tools.corpus(text), *tools.SIZES, *tools.OPTIM, *FLAGS, *extra)
    command = lambda folder: ("train", tools.recipe(method), f"--workdir={folder}", *given)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    started = tools.process(*command(whole), env=PRODUCTION)
    assert started.status == 0, started

    draw, log = random.Random(method), tmp_path / "log"
    first, second = draw.randint(8, 14), draw.randint(24, 32)
    moments = [
        lambda w: lines(w) >= 2,  # before the first checkpoint
        lambda w: lines(w) >= first,
        lambda w: lines(w) >= second,
    ]
    for ready in moments:
        kill_at(command(torn), torn, ready, log)
        assert not (torn / "summary.json").exists()
    end = tools.process(*command(torn), env=PRODUCTION)
    assert end.status == 0, end
    resumed = int(end.out.split("updates ")[1].split(" to 40")[0])
    assert 0 < resumed < 40 and resumed % 6 == 0  # it went on from a checkpoint

    metrics = [tools.curve(w) for w in (whole, torn)]
    assert metrics[0] == metrics[1]
    steps = [r["step"] for r in tools.json_lines(torn / "metrics.jsonl") if "train_loss" in r]
    assert steps == list(range(1, 41))
    (a, meta_a), (b, meta_b) = final_state(whole), final_state(torn)
    assert tools.untimed(meta_a) == tools.untimed(meta_b) and int(a.step) == 40
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert tools.summary(whole) == tools.summary(torn)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["", ".ldd_jax-0123456789abcdef.partial", "config.json"])
def test_a_run_killed_in_its_first_moment_can_start_again(left, trained, train_flags, tmp_path):
    """An empty folder, a torn config, or a config and half a tokenizer are all there is."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    if left:
        (workdir / left).write_text((trained("mdlm") / "config.json").read_text())
    if left == "config.json":
        (workdir / "tokenizer").mkdir()
        (workdir / "tokenizer" / "tokenizer.json.tmp").write_text("{")
    tools.good("train", tools.recipe("mdlm"), f"--workdir={workdir}", *train_flags)
    assert tools.curve(workdir) == tools.curve(trained("mdlm"))
