"""Type a command, in this process or in its own; a small corpus; tiny overrides."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ldd_jax.cli.main import main

ROOT = Path(__file__).parents[2]
METHODS = ("mdlm", "lddm_m", "udlm", "lddm_u")
WORDS = "the a small red house stands by old river and we walk along its quiet bank each day"

# One shape and one optimizer for all tests: compiling dominates, and equal programs are cached.
SIZES = (
    "--config.model.width=16",
    "--config.model.heads=2",
    "--config.model.depth=1",
    "--config.model.cond_width=8",
    "--config.data.length=16",
    "--config.training.batch_size=8",
    "--config.training.log_every=3",
    "--config.evaluation.max_sequences=32",
    "--config.evaluation.batch_size=16",
    "--config.evaluation.draws=2",
    "--config.sampling.num_steps=4",
    "--config.sampling.num_samples=3",
    "--config.sampling.batch_size=3",
)
OPTIM = ("--config.optim.lr=3e-3", "--config.optim.warmup_steps=4")
STEPS = (
    "--config.training.num_steps=12",
    "--config.training.eval_every=6",
    "--config.training.checkpoint_every=5",
)


class Result(NamedTuple):
    status: int
    out: str
    err: str


def call(*argv: object) -> Result:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(a) for a in argv])
    return Result(status, out.getvalue(), err.getvalue())


def good(*argv: object) -> Result:
    """Run a command line that must succeed."""
    result = call(*argv)
    assert result.status == 0, result
    return result


def start(*argv: object, env: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """Start a command line in a process of its own."""
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) | options
    return subprocess.Popen(
        [sys.executable, "-m", "ldd_jax", *map(str, argv)],
        env={**os.environ, **(env or {})},
        cwd=ROOT,
        **options,
    )


def process(*argv: object, env: dict[str, str] | None = None) -> Result:
    """Run a command line in a process of its own."""
    running = start(*argv, env=env)
    out, err = running.communicate(timeout=300)
    return Result(running.returncode, out, err)


def sentences(count: int, seed: int = 0) -> str:
    """Lines of words from a fixed list."""
    draw, words = random.Random(seed), WORDS.split()
    line = lambda: " ".join(draw.choice(words) for _ in range(draw.randint(4, 9)))
    return "".join(line() + ".\n" for _ in range(count))


def recipe(method: str, file: str = "text") -> str:
    """The config flag of a recipe."""
    return f"--config={ROOT / 'configs' / file}.py:method={method}"


def corpus(path: Path) -> tuple[str, ...]:
    """Overrides that read a text line by line."""
    return (f"--config.data.path={path}", "--config.data.split=line")


def json_lines(path: Path) -> list[dict]:
    """Strict JSON: NaN is refused."""

    def refuse(name):
        raise AssertionError(f"{path} holds {name}, which is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


TIMES = ("seconds", "tokens_per_second", "goodput")  # what differs from run to run


def untimed(record: dict) -> dict:
    """A summary, or what a checkpoint notes, but for its times."""
    return {k: v for k, v in record.items() if k not in TIMES}


def summary(workdir: Path) -> dict:
    """The summary of a run but for its times."""
    return untimed(json.loads((workdir / "summary.json").read_text()))


def curve(workdir: Path) -> list[dict]:
    """The metrics of a run but for its speed, which is the only thing that may differ."""
    lines = json_lines(workdir / "metrics.jsonl")
    return [{k: v for k, v in r.items() if not k.startswith("speed/")} for r in lines]
