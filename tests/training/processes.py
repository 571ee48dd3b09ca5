"""A tiny training run as a command, for tests in which several processes run it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = ["the", "a", "list", "of", "value", "return", "function", "index", "module", "class"]
WORDS += ["object", "zone"]
# Of 2 processes x 4 devices; on the second both hold the same rows.
MESHES = {
    "rows apart": ("--config.mesh.data=4", "--config.mesh.fsdp=2"),
    "rows apart, average on the hosts": (
        "--config.mesh.data=4",
        "--config.mesh.fsdp=2",
        "--config.training.ema_on_host=True",
    ),
    "rows shared": ("--config.mesh.data=1", "--config.mesh.tensor=2", "--config.mesh.sequence=4"),
}
MESH = MESHES["rows apart"]


def corpus(folder: Path) -> Path:
    """A text file of made-up paragraphs."""
    path = folder / "words.txt"
    path.write_text(
        "\n\n".join(" ".join(WORDS[(7 * i + j * j) % 12] for j in range(30)) for i in range(200))
    )
    return path


def arguments(text: Path, workdir: Path, steps: int, *more: str) -> list[str]:
    """Subcommand and flags."""
    return [
        "train", f"--config={ROOT}/configs/text.py:method=lddm_m",
        f"--config.data.path={text}", "--config.data.split=paragraph",
        "--config.data.length=32", "--config.model.width=32", "--config.model.depth=2",
        "--config.training.batch_size=16", f"--config.training.num_steps={steps}",
        "--config.training.log_every=1", "--config.evaluation.draws=1",
        "--config.evaluation.max_sequences=64", "--config.sampling.num_steps=4",
        "--config.objective.tile=64", "--config.sampling.tile=32",
        "--config.optim.decay=constant",
        f"--workdir={workdir}", *more,
    ]  # fmt: skip


def command(text: Path, workdir: Path, steps: int, *more: str) -> list[str]:
    """The whole command line, run from the root of the repository."""
    return [sys.executable, "-m", "ldd_jax", *arguments(text, workdir, steps, *more)]


def read(workdir: Path) -> tuple[list[float], list[str]]:
    """Training losses and samples of a run."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train_loss"] for line in lines if "train_loss" in line]
    return losses, [line["samples"] for line in lines if "samples" in line]
