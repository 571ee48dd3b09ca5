"""Start the command from outside, strike, start it again, and compare with a run left alone."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from tests.children import environment
from tests.cli import tools

FLAGS = (
    *tools.SIZES,
    *tools.OPTIM,
    "--config.training.log_every=1",
    "--config.training.eval_every=20",
    "--config.training.sample_every=40",
    "--config.training.checkpoint_every=4",
)
# The tests of tests/cli leave optimisations out.
ENV = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
LIMIT = 240.0


@dataclasses.dataclass
class Row:
    """A line of the table: a fault, how often it was tried, and what was lost (None: no run)."""

    fault: str
    tried: int
    outcome: str
    lost_steps: int | None = 0
    lost_examples: int | None = 0

    @property
    def failed(self) -> bool:
        """Whether it failed, or something was lost."""
        return bool(self.outcome.startswith("FAILED") or self.lost_steps or self.lost_examples)


class Arena:
    """A corpus, a run left alone on it, and the means to start and strike others.

    Args:
      folder: where everything lies.
      method: of the recipe.
      length: updates of a run.
    """

    def __init__(self, folder: Path, method: str = "lddm_m", length: int = 120):
        self.folder, self.method, self.length = folder, method, length
        self.text = folder / "text.txt"
        self.text.write_text(tools.sentences(100))
        self.whole = folder / "whole"
        out = self.run(self.whole)
        assert out.status == 0, out

    def command(self, workdir: Path, *more: str) -> list[str]:
        given = (tools.recipe(self.method), f"--workdir={workdir}", *tools.corpus(self.text))
        ledger = self.ledger(workdir)
        main = [sys.executable, "-m", "tests.faults.recorded", str(ledger), "train"]
        return [*main, *given, *FLAGS, f"--config.training.num_steps={self.length}", *more]

    def ledger(self, workdir: Path) -> Path:
        return self.folder / f"{workdir.name}.ledger"

    def start(self, workdir: Path, *more: str, devices: int = 1, pause: float = 0, **env: str):
        return subprocess.Popen(
            self.command(workdir, *more),
            env={**environment(devices), **ENV, "FAULTS_PAUSE": str(pause), **env},
            cwd=tools.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, workdir: Path, *more: str, **options) -> tools.Result:
        running = self.start(workdir, *more, **options)
        out, err = running.communicate(timeout=LIMIT)
        return tools.Result(running.returncode, out, err)

    def steps(self, workdir: Path, rank: int = 0) -> int:
        """Lines of the ledger: batches taken so far, those taken twice included."""
        path = Path(f"{self.ledger(workdir)}.{rank}")
        return path.read_text().count('"rows"') if path.exists() else 0


def wait(running: subprocess.Popen, ready: Callable[[], bool], nap: float = 0.002) -> bool:
    """Until `ready`; False if the process ended before."""
    until = time.monotonic() + LIMIT
    while not ready():
        if running.poll() is not None:
            return False
        assert time.monotonic() < until, "the run does not get on"
        time.sleep(nap)
    return True


def strike(running: subprocess.Popen, number: int) -> tools.Result:
    """Send a signal and read what the process still says."""
    os.kill(running.pid, number)
    out, err = running.communicate(timeout=LIMIT)
    return tools.Result(running.returncode, out, err)


def writing(workdir: Path) -> bool:
    """Whether a checkpoint is half-written."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def account(ledger: Path, rank: int = 0) -> list[list[int]]:
    """Rows of each step that stands in the end: a life that begins at step n undoes those after.

    Raises:
      AssertionError: if a step is missing.
    """
    kept: list[list[int]] = []
    for line in Path(f"{ledger}.{rank}").read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a kill; that batch was never trained on
        if "begin" in record:
            assert record["begin"] <= len(kept), "steps are missing"
            del kept[record["begin"] :]
        else:
            assert record["step"] == len(kept), "steps are missing"
            kept.append(record["rows"])
    return kept


def losses(arena: Arena, workdir: Path) -> tuple[int, int]:
    """(steps, examples) that the run lacks or has twice, against the one left alone."""
    mine, whole = (account(arena.ledger(w)) for w in (workdir, arena.whole))
    rows = max(max(r) for r in whole) + 1
    flat = [r for step in mine for r in step]
    epochs = [flat[i : i + rows] for i in range(0, len(flat), rows)]
    twice = sum(len(e) - len(set(e)) for e in epochs)
    skipped = sum(rows - len(set(e)) for e in epochs[:-1])
    moved = sum(a != b for a, b in zip(mine, whole))
    return abs(arena.length - len(mine)) + moved, twice + skipped


def final(workdir: Path):
    """The last state and its record."""
    built = experiments.restore(workdir)
    like = states.abstract(built.model, built.update.optimizer, built.mesh)
    state, meta = Checkpoints(workdir, read_only=True).restore(like)
    return jax.device_get(state), meta


def same(one: Path, other: Path, within: float = 0.0) -> None:
    """Curves, summaries and final states are equal: to the bit, or `within`."""
    curves = [tools.curve(w) for w in (one, other)]
    (a, meta_a), (b, meta_b) = final(one), final(other)
    assert int(a.step) == int(b.step)
    if within:
        pick = lambda c: [r["train_loss"] for r in c if "train_loss" in r]
        np.testing.assert_allclose(pick(curves[0]), pick(curves[1]), rtol=0, atol=within)
        close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=within)
        jax.tree.map(close, a.params, b.params)
        return
    assert curves[0] == curves[1]
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert tools.untimed(meta_a) == tools.untimed(meta_b)
    assert tools.summary(one) == tools.summary(other)


SIGKILL, SIGTERM, SIGINT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
