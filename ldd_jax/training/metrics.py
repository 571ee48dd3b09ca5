"""Where scalars and texts go: JSON lines, TensorBoard, the terminal.

Shaped like clu's MetricWriter, whose own module cannot be imported without TensorFlow.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from ldd_jax.core import reading, storage, writing
from ldd_jax.core.checks import parse_json
from ldd_jax.core.console import ERR, OUT, harmless, say

LARGEST = 1 << 31  # bytes of a metrics file: ten million lines
# Samples drawn in training; those of the `sample` command have another name.
SAMPLES = "training_samples.jsonl"


class Writer(Protocol):
    """Receives values of a step."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Store the values."""
        ...

    def close(self) -> None:
        """Flush."""
        ...


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinities as None, which JSON can hold."""
    bad = lambda v: isinstance(v, float) and not math.isfinite(v)
    return {k: None if bad(v) else v for k, v in values.items()}


class JsonLines:
    """`metrics.jsonl`; lines past the step that a run resumes from are dropped.

    So are, at that step, those with a name that starts with one of `again`: what the run is about
    to repeat.
    """

    def __init__(self, path: Path, resume_step: int, again: tuple[str, ...] = ()):
        repeated = lambda r: r["step"] == resume_step and any(n.startswith(again) for n in r)
        found = read_metrics(path) if path.exists() else []
        kept = [r for r in found if r["step"] <= resume_step and not repeated(r)]
        writing.write(path, "".join(json.dumps(r) + "\n" for r in kept))
        self.file = writing.append(path)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One line."""
        self.file.write(json.dumps({"step": step, **finite(values)}) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; from a torn or damaged one on, they are left out."""
    out = []
    for line in reading.read(path, LARGEST).splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            break
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            break
        out.append(record)
    return out


class TensorBoard:
    """Event files under `workdir/tensorboard`, through tensorboardX."""

    def __init__(self, path: Path, resume_step: int):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(writing.subfolder(path)), purge_step=resume_step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Finite numbers as scalars, strings as texts."""
        for name, value in values.items():
            if isinstance(value, str):
                self.writer.add_text(name, value, step)
            elif isinstance(value, int | float) and math.isfinite(value):
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()
        storage.settle()


class Throughput:
    """Tokens and model operations per second of training since it was last read.

    Model FLOP/s = operations / time, and MFU = that / (devices x peak), where operations are those
    the method cannot do without (`planning.cost.model_operations`). Left out: the first step,
    which compiles, and whatever `rest` follows.
    """

    def __init__(self, tokens: float, operations: float, peak: float | None):
        self.tokens, self.operations, self.peak = tokens, operations, peak
        self.steps, self.spent = 0, 0.0
        self.all_steps, self.all_spent = 0, 0.0
        self.last: float | None = None

    def rest(self) -> None:
        """What happened since the last step was no training."""
        self.last = None

    def step(self) -> None:
        """A step has ended."""
        now = time.monotonic()
        if self.last is not None:
            self.spent += now - self.last
            self.steps += 1
            self.all_spent += now - self.last
            self.all_steps += 1
        self.last = now

    @property
    def overall(self) -> float | None:
        """Tokens per second of all training of this process; None if no step was measured."""
        return self.all_steps * self.tokens / self.all_spent if self.all_spent else None

    def read(self) -> dict[str, float]:
        """The rates, none if there is nothing to measure; starts anew."""
        if not self.spent:
            return {}
        rate = self.steps / self.spent
        self.steps, self.spent = 0, 0.0
        found = {
            "speed/tokens_per_second": rate * self.tokens,
            "speed/model_flops_per_second": rate * self.operations,
        }
        if self.peak:
            found["speed/mfu"] = rate * self.operations / self.peak
        return found


class Ticker:
    """Says how far counted work is, once in `seconds`; nothing of work that is done by then."""

    def __init__(self, what: str, say: Callable[[str], None], seconds: float = 10.0):
        self.what, self.say, self.seconds = what, say, seconds
        self.began = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Part number `done` of `total` is done."""
        now = time.monotonic()
        if done == total or now - self.last < self.seconds:
            return
        self.last, left = now, (now - self.began) / done * (total - done)
        self.say(f"{self.what}: batch {done} of {total}, about {left:.0f} s left")


class Progress:
    """A bar on a terminal, plain lines elsewhere: step, tokens seen, tokens/s, loss, ETA.

    Speed and ETA are those of training (`Throughput`): compiling, evaluating and sampling are in
    neither, and are named while they last.
    """

    FORMAT = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"

    def __init__(self, first: int, total: int, tokens_per_step: int, quiet: bool = False):
        self.total, self.tokens = total, tokens_per_step
        self.began = time.monotonic()
        self.quiet = quiet
        self.told = self.doing = ""
        self.bar = None
        if ERR.isatty() and not quiet:
            look = dict(dynamic_ncols=True, bar_format=self.FORMAT)
            self.bar = tqdm(total=total, initial=first, file=ERR, **look)

    def step(self, n: int = 1) -> None:
        """Advance the bar; what was done before is over."""
        if self.bar is not None:
            if self.doing:
                self.bar.set_description(self.told, refresh=False)
            self.bar.update(n)
        self.doing = ""

    def status(self, doing: str, *, aloud: bool = False) -> None:
        """What is done instead of a step, on the bar; without one it is a line if `aloud`."""
        self.doing = doing
        if self.bar is not None:
            self.bar.set_description(doing)
        elif aloud:
            self.line(doing)

    def line(self, text: str) -> None:
        """What the bar's status says already: a line where there is no bar."""
        if self.bar is None:
            self.say(text)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Loss and speed of the last interval."""
        if "train_loss" not in values:
            return
        loss, seen = f"loss {values['train_loss']:.4f}", f"{step * self.tokens:,}"
        rate, speed = values.get("speed/tokens_per_second"), ""
        if rate:
            left = (self.total - step) * self.tokens / rate
            speed = f"{rate:,.0f} tokens/s  ETA {int(left // 60)}:{int(left % 60):02d}"
        if self.bar is None:
            self.say(f"step {step}/{self.total}  {loss}  tokens {seen}  {speed}".rstrip())
        else:
            self.told = f"{loss}, {seen} tokens"
            self.bar.set_description(self.told, refresh=False)
            self.bar.set_postfix_str(speed)

    def say(self, text: str) -> None:
        """Print without breaking the bar."""
        if self.quiet:
            return
        if self.bar is None:
            say(text)
        else:
            self.bar.write(harmless(text, "\n\t"), file=OUT)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
