"""What a run says and writes of itself: its lines, metrics, profile, summary and curve."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax

from ldd_jax.config.experiment import Experiment
from ldd_jax.core import registry, writing
from ldd_jax.core.checks import is_number
from ldd_jax.core.console import say
from ldd_jax.data import Corpus
from ldd_jax.evaluation import curves
from ldd_jax.planning import chips, cost
from ldd_jax.runs import replay
from ldd_jax.training import distributed, metrics, wandb
from ldd_jax.training import state as states
from ldd_jax.training.goodput import Goodput
from ldd_jax.training.recorder import Recorder

# Steps of a process before a profile begins: compiling and warming up.
PROFILE_AFTER = 3
# What may be due after an update, in order, and how its lines in metrics.jsonl begin.
WORK = {"evaluate": "validation/", "sample": "samples", "save": ""}


def opened(
    experiment: Experiment, workdir: Path, meta: dict[str, Any], first: int, owed: Collection[str]
) -> Recorder:
    """The recorder of a run; files that the leader writes lose their lines beyond update `first`.

    Args:
      experiment: of the run.
      workdir: where it writes.
      meta: the record of the checkpoint that the run goes on from.
      first: update of that checkpoint.
      owed: what was due then and is done again.
    """
    settings = experiment.training
    tokens = settings.batch_size * experiment.config.data.length
    progress = metrics.Progress(first, settings.num_steps, tokens, quiet=not distributed.leader())
    writers: list[metrics.Writer] = []
    if distributed.leader():
        again = WORK if first == settings.num_steps else owed
        starts = tuple(WORK[work] for work in again if WORK[work])
        if (workdir / metrics.SAMPLES).exists():
            again = ("index",) if "sample" in again else ()
            metrics.JsonLines(workdir / metrics.SAMPLES, first, again).close()
        writers = [
            metrics.JsonLines(workdir / "metrics.jsonl", first, starts),
            metrics.TensorBoard(workdir / "tensorboard", first),
            progress,
        ]
        if settings.wandb:
            shown = experiment.config
            writers.append(wandb.WandB(settings.wandb, workdir, shown.recipe, shown.to_dict()))
    operations = cost.model_operations(experiment, tokens)
    return Recorder(
        writers,
        progress,
        metrics.Throughput(tokens, operations, chips.peak(experiment.mesh.devices.flat)),
        every=settings.log_every,
        patience=settings.max_skipped,
        dump=functools.partial(replay.dump, workdir),
        saved=meta,
        goodput=Goodput(meta.get("goodput"), ended=_ended(meta)),
        rate=experiment.optim.rate_at,
    )


def _ended(meta: Mapping[str, Any]) -> bool:
    """Whether a run had done all its updates at a checkpoint."""
    found: Any = meta
    for name in ("config", "training", "num_steps"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return is_number(found) and meta["step"] >= found


def announcement(experiment: Experiment, corpus: Corpus, params: Any, first: int) -> list[str]:
    """What is trained, on what, and which updates are to come.

    Args:
      experiment: the run's.
      corpus: its data.
      params: are counted.
      first: number of the first update.
    """
    e = experiment
    return [
        corpus.describe(),
        f"{e.config.recipe}: {states.count(params):,} parameters, "
        f"{jax.device_count()} {jax.default_backend()} device(s), "
        f"batch {e.training.batch_size} x {e.config.data.length} tokens, "
        f"updates {first} to {e.training.num_steps}",
    ]


def seam(experiment: Experiment, meta: Mapping[str, Any], step: int) -> str:
    """The learning rates before and after a restart where the schedule changed; "" = it did not.

    Args:
      experiment: with the schedule from here on.
      meta: of the checkpoint, with the config until here.
      step: of the checkpoint.
    """
    old = meta["config"]
    steps = int(old["training"]["num_steps"])
    before = registry.build("optim", old["optim"], num_steps=steps)
    rate_at = experiment.optim.rate_at
    was, now, after = before.rate_at(step), rate_at(step), rate_at(step + 1)
    if not step or abs(was - now) <= 1e-6 * max(was, now):
        return ""
    return (
        f"learning rate: {was:.3g} at update {step}, the last one ({before.decay} over {steps} "
        f"updates); {after:.3g} at update {step + 1}, the next "
        f"({experiment.optim.decay} over {experiment.training.num_steps})"
    )


class Profile:
    """A trace of `steps` updates of this process, after its first ones; 0 = none."""

    def __init__(self, workdir: Path, steps: int, recorder: Recorder):
        self.folder, self.steps, self.recorder = workdir / "profile", steps, recorder
        self.tracing = False

    def before(self, number: int, state: Any) -> None:
        """Begin or end the trace where the `number`-th update of this process is to come."""
        if self.steps and number == PROFILE_AFTER:
            jax.profiler.start_trace(str(writing.subfolder(self.folder)))
            self.tracing = True
        elif self.tracing and number >= PROFILE_AFTER + self.steps:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self.tracing = False
            self.recorder.say(f"profile: {self.folder}")

    def end(self, state: Any) -> None:
        """End the trace if it is under way still."""
        self.before(PROFILE_AFTER + self.steps, state)


def summarise(workdir: Path, title: str, summary: dict[str, Any]) -> None:
    """Write `summary.json` and the curve, and say where they are.

    Args:
      workdir: of the run.
      title: of the curve.
      summary: what is written; `unigram_entropy`, where it has one, is the line that a curve should
        get below.
    """
    text = json.dumps(metrics.finite(summary), indent=2)
    writing.write(workdir / "summary.json", text + "\n")
    curves.plot(
        metrics.read_metrics(workdir / "metrics.jsonl"),
        workdir / "curve.png",
        title=title,
        baseline=summary.get("unigram_entropy"),
    )
    say(f"curve: {workdir / 'curve.png'}   summary: {workdir / 'summary.json'}")
