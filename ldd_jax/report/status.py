"""A run as its workdir shows it, whatever runs there: nothing is written, locked or loaded.

JAX is not imported, so that looking costs the run little.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, is_number, is_whole, require, spread
from ldd_jax.report import history
from ldd_jax.training.metrics import SAMPLES, read_metrics

VALIDATION, SPEED = "validation/", "speed/tokens_per_second"
LONGEST = 1e9  # seconds that are told
# Files that change while a run goes on.
WATCHED = ("config.json", "metrics.jsonl", SAMPLES, "summary.json", "lock", "checkpoints")


@dataclasses.dataclass(frozen=True)
class Status:
    """What a workdir tells of its run.

    Attributes:
      name: of the folder.
      recipe: of the config.
      steps: updates that the config asks for.
      tokens: of an update.
      holder: what the lock says of the process that trains; "" = none does.
      lines: of metrics.jsonl, in order.
      finished: the last summary is that of the last update.
      checkpoint: newest one; None = none yet.
      saved: when it was written, seconds since the epoch.
      samples: (step, texts) of every time that samples were drawn.
    """

    name: str
    recipe: str
    steps: int
    tokens: int
    holder: str
    lines: list[dict[str, Any]]
    finished: bool
    checkpoint: int | None
    saved: float
    samples: list[tuple[int, list[str]]]

    @property
    def step(self) -> int:
        """The last update that something is known of."""
        return max([r["step"] for r in self.lines] + [self.checkpoint or 0])

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(step, mean training loss of an interval)."""
        return self.known("train_loss")

    @property
    def bounds(self) -> list[tuple[int, float]]:
        """(step, validation bound), nats per token."""
        return self.known(f"{VALIDATION}nelbo_nats_per_token")

    @property
    def rate(self) -> float | None:
        """Tokens per second of the last interval that was measured."""
        return next((v for _, v in reversed(self.known(SPEED)) if v > 0), None)

    @property
    def seconds_left(self) -> float | None:
        """Training until the last update at this rate; evaluating and sampling come on top."""
        if not self.rate or self.finished or not self.tokens:
            return None
        left = max(self.steps - self.step, 0) * self.tokens / self.rate
        return left if left < LONGEST else None

    @property
    def skipped(self) -> int:
        """Updates left out because their loss or gradient was not finite, by the last line."""
        return sum(int(v) for _, v in self.known("skipped"))

    @property
    def state(self) -> str:
        """What the run does, in words."""
        if self.finished:
            return "finished"
        if self.holder:
            return f"training ({self.holder})"
        return "not running; the same command goes on"

    def known(self, name: str) -> list[tuple[int, float]]:
        """(step, value) where the value is a finite number."""
        return [(r["step"], r[name]) for r in self.lines if is_number(r.get(name))]

    def evaluations(self) -> list[tuple[int, dict[str, Any]]]:
        """Step and record of every evaluation."""
        own = lambda line: {
            n.removeprefix(VALIDATION): v for n, v in line.items() if n.startswith(VALIDATION)
        }
        return [(r["step"], found) for r in self.lines if (found := own(r))]

    def facts(self) -> list[tuple[str, str]]:
        """Name and value of what the two views say in words."""
        share = f" ({100 * self.step // self.steps} %)" if self.steps else ""
        out = [("state", self.state), ("update", f"{self.step:,} of {self.steps:,}{share}")]
        if self.losses:
            step, loss = self.losses[-1]
            out.append(("training loss", f"{loss:.4f}, mean of the interval to update {step:,}"))
        if self.rate:
            left = "" if self.seconds_left is None else f", about {clock(self.seconds_left)} left"
            out.append(("speed", f"{self.rate:,.0f} tokens/s{left}"))
        for step, record in self.evaluations()[-1:]:
            out.append(("evaluation", f"update {step:,}: {said(record)}"))
        if self.checkpoint is not None:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.saved))
            out.append(("checkpoint", f"update {self.checkpoint:,}, written {when}"))
        out.append(("skipped updates", str(self.skipped or "none")))
        return out


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def said(record: Mapping[str, Any]) -> str:
    """An evaluation in words: a bound with its error and whose it is, else its first figures."""
    nats = record.get("nelbo_nats_per_token")
    error = lambda name: record[name] if is_number(record.get(name)) else None
    if nats is not None and is_number(nats):
        name = "NLL" if record.get("exact") else "NELBO" if record.get("bound") else "mean loss"
        whose = f", an upper bound for {record['bounds']}" if record.get("bounds") else ""
        return f"{name} {spread(nats, error('nelbo_se'), 4)} nats/token{whose}"
    shown = [n for n, v in record.items() if is_number(v) and not n.endswith("_se")][:4]
    return ", ".join(f"{n} {spread(record[n], error(f'{n}_se'), 4)}" for n in shown)


def signature(workdir: Path) -> tuple[Any, ...]:
    """Equal as long as nothing that `read` reads has changed."""
    found: list[Any] = [_holder(workdir)]
    for name in WATCHED:
        try:
            there = (workdir / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((there.st_mtime_ns, there.st_size))
    return tuple(found)


def read(workdir: Path) -> Status:
    """The run in a workdir.

    Raises:
      UserError: if the folder is none, or its config cannot be read.
    """
    path = workdir / "config.json"
    require(path.is_file(), f"{workdir} is not a workdir (no config.json); train there first")
    try:
        config = reading.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    number = lambda section, name: _whole(_section(_section(config, section), name))
    steps = number("training", "num_steps")
    recipe = _section(config, "recipe")
    require(isinstance(recipe, str) and steps >= 0, f"{path} is no config of this library")
    metrics = workdir / "metrics.jsonl"
    found = read_metrics(metrics) if metrics.is_file() else []
    newest = _checkpoint(workdir / "checkpoints")
    summary = _summary(workdir / "summary.json")
    length, batch = number("data", "length"), number("training", "batch_size")
    return Status(
        name=workdir.resolve().name,
        recipe=recipe,
        steps=steps,
        tokens=max(length, 0) * max(batch, 0),
        holder=_holder(workdir),
        lines=[r for r in found if is_number(r["step"])],
        finished=0 < steps <= _whole(summary.get("step")),
        checkpoint=newest[0] if newest else None,
        saved=newest[1] if newest else 0.0,
        samples=history.read(workdir),
    )


def _section(tree: Any, name: str) -> Any:
    return tree.get(name) if isinstance(tree, dict) else None


def _whole(value: Any) -> int:
    """A whole number of a file, within 63 bits; -1 for anything else."""
    return value if type(value) is int and abs(value) < 1 << 63 else -1


def _summary(path: Path) -> dict[str, Any]:
    try:
        found = reading.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _checkpoint(folder: Path) -> tuple[int, float] | None:
    """Step of the newest checkpoint that has its name, and when it was written."""
    try:
        steps = [int(p.name) for p in folder.iterdir() if is_whole(p.name)]
        return (max(steps), (folder / str(max(steps))).stat().st_mtime) if steps else None
    except OSError:
        return None  # deleted meanwhile, or not there yet


def _holder(workdir: Path) -> str:
    """The process in the workdir's lock; "" where there is none, or it has ended on this machine.

    The lock is read and not tried: whoever holds it for a moment stops a run that starts then.
    """
    try:
        text = reading.read_text(workdir / "lock", 4096).split("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
    words = text.split()
    if len(words) == 4 and words[3] == socket.gethostname() and is_whole(words[1], 1):
        try:
            os.kill(int(words[1]), 0)
        except (ProcessLookupError, OverflowError):
            return ""
        except PermissionError:
            pass  # somebody else's, and alive
    return text
