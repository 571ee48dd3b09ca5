"""One training run in a workdir: one loop, sharding always on."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ldd_jax.config import experiment as experiments
from ldd_jax.config import refusals, stored
from ldd_jax.config.workdir import check_place, check_tokenizer, claim, open_workdir
from ldd_jax.core import registry, writing
from ldd_jax.core.checks import RunError, require
from ldd_jax.core.console import say
from ldd_jax.core.storage import at
from ldd_jax.data import Corpus, Spread, Tokenizer, batches
from ldd_jax.evaluation import likelihood
from ldd_jax.inference import json_lines
from ldd_jax.inference.energy import Energy
from ldd_jax.inference.generate import Sampler
from ldd_jax.inference.validate import validate
from ldd_jax.runs import reporting, warm_start
from ldd_jax.runs.reporting import WORK
from ldd_jax.runs.stalls import Stalls
from ldd_jax.training import distributed, metrics, sharding, wandb
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.preemption import Stop, Stopped


class Run:
    """`execute` trains from where the last run in this workdir stopped.

    `stop` says when to end early, `stalls` what to do where nothing gets on; `held` lets go at the
    end (lock, checkpoints).
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        profile: int,
        stop: Stop,
        stalls: Stalls,
        held: contextlib.ExitStack,
    ):
        self.stop, self.stalls = stop, stalls
        held.callback(stalls.end)
        stalls.begin()
        if distributed.leader():
            open_workdir(workdir, config)
        self.workdir = workdir
        tokenizer = warm_start.tokenizer(config, workdir)
        self._check(config, tokenizer)
        data = registry.build("data", config.data)
        self.corpus: Corpus = data.load(tokenizer)
        self.experiment = experiments.build(config, self.corpus.tokenizer)
        refusals.check_classes(self.experiment, self.corpus.classes)
        refusals.check_channels(self.experiment, self.corpus.channels)
        self.like = self.experiment.abstract()
        require(
            self.experiment.training.batch_size <= len(self.corpus.train),
            f"training.batch_size {self.experiment.training.batch_size} is larger than the "
            f"training split ({len(self.corpus.train)} rows); lower it or give a longer text",
        )
        if distributed.leader():
            claim(workdir, config, self.corpus.tokenizer, held)
        distributed.shared(workdir)
        keep = self.experiment.training
        self.checkpoints = Checkpoints(
            workdir, keep=keep.keep, every=keep.keep_every, best=keep.keep_best
        )
        self.scored: tuple[int, float] | None = None
        held.callback(self.checkpoints.abandon)
        self.programs: dict = {}
        self.origin = self.seam = ""
        meta = self._restore()
        self.first = self.step = int(meta["step"])
        self.owed: list[str] = list(meta["owed"])
        if distributed.leader():
            stored.save_config(config, workdir)
        self.recorder = reporting.opened(self.experiment, workdir, meta, self.first, self.owed)
        held.callback(self.recorder.abandon)
        self.profile = reporting.Profile(workdir, profile, self.recorder)

    def _check(self, config: ConfigDict, tokenizer: Tokenizer | None) -> None:
        """Refuse what needs no data, before they are read."""
        experiment = refusals.check(config, tokenizer)
        check_place(self.workdir)
        wandb.check(experiment.training.wandb)
        if (self.workdir / "checkpoints").is_dir():
            wanted = experiment.training.num_steps
            newest = Checkpoints(self.workdir, read_only=True).beyond(wanted)
            require(
                newest is None,
                f"{self.workdir} is at step {newest} already; training.num_steps={wanted} is "
                "behind it",
            )
        if experiment.training.initial and not (self.workdir / "config.json").exists():
            warm_start.check(experiment, experiment.abstract().params)

    def _restore(self) -> dict[str, Any]:
        """Set the state, from the newest checkpoint if there is one; returns its record."""
        newest, e = self.checkpoints.latest(), self.experiment
        if newest is None:
            self.state = e.initial()
            if e.training.initial:
                self.state, self.origin = warm_start.begin(e, self.state)
            return {"step": 0, "owed": []}
        self.state, meta = self.checkpoints.restore(self.like, states=e.tokens.size)
        check_tokenizer(e, meta, self.workdir)
        require(
            meta["corpus"] == self.corpus.fingerprint,
            f"{self.corpus.source} has changed since {self.workdir} was trained on it "
            f"({meta['corpus']} then, {self.corpus.fingerprint} now); give another --workdir",
        )
        self.seam = reporting.seam(e, meta, newest)
        return {"owed": [], **meta}  # format 1 knew no owed work

    def execute(self) -> dict[str, Any]:
        """Train to the end, evaluate, sample, plot; returns the summary that is also on disk.

        A run that is asked to stop saves what it has; then the summary says `stopped`.
        """
        e, params = self.experiment, self.state.params
        said = reporting.announcement(e, self.corpus, params, self.first)
        for line in filter(None, (*said, self.origin, self.seam)):
            self.recorder.say(line)
        self.stop.begin()
        try:
            self._serve()
            self._train()
            return self._finish(self.experiment.training.num_steps)
        except Stopped:
            return self._leave()

    def _train(self) -> None:
        settings, mesh = self.experiment.training, self.experiment.mesh
        step_fn = experiments.step_function(self.experiment, self.like)
        stream = batches(
            self.corpus.train,
            batch_size=settings.batch_size,
            seed=self.experiment.config.seed,
            own=sharding.own(mesh, settings.batch_size),
        )
        stream.set_state({"next_step": self.first})
        key = sharding.everywhere(mesh, self.experiment.key(1))
        pending = None
        if self.first < settings.num_steps:
            self.recorder.status("compiling the update", aloud=True)
        for step in range(self.first + 1, settings.num_steps + 1):
            self.profile.before(step - self.first, self.state)
            self.stalls.beat(f"update {step}")
            compiled = step > self.first + 2  # the first of a process is read with the second
            self.recorder.turn("data" if compiled else "start")
            arrays = next(stream)
            self.recorder.turn("steps" if compiled else "start")
            self.state, new = step_fn(self.state, sharding.put(mesh, arrays), key)
            if pending is not None:  # read the step before only now that this one is under way
                self.recorder.record(*pending)
            pending = (step, new, arrays)
            self.step, self.owed = step, self._due(step)
            if self.stop.reached() or self.owed:
                self.recorder.record(*pending)
                pending = None
                self._serve()
        self.profile.end(self.state)
        if pending is not None:
            self.recorder.record(*pending)

    def _due(self, step: int) -> list[str]:
        settings = self.experiment.training
        if step == settings.num_steps:
            return []  # the end does all of it
        every = (settings.eval_every, settings.sample_every, settings.checkpoint_every)
        return [work for work, n in zip(WORK, every) if n and step % n == 0]

    def _serve(self) -> None:
        """Do what is due at this step; what a stop cuts short stays owed."""
        work = {"evaluate": self._evaluate, "sample": self._sample, "save": self._save}
        while self.owed:
            self.stop.check()
            now, *rest = self.owed
            self.recorder.turn(now)
            work[now](self.step)
            self.owed = rest
        self.stop.check()
        self.recorder.rest()

    def _evaluate(self, step: int) -> likelihood.Estimate | Energy:
        self.recorder.status("evaluating")
        self.stalls.beat(f"evaluating at step {step}")
        tick = metrics.Ticker(f"step {step}  validation", self.recorder.progress.line)

        def report(done: int, total: int) -> None:
            self.recorder.status(f"evaluating {done}/{total}")
            self.stalls.beat(f"evaluating {done}/{total} at step {step}")
            tick(done, total)

        settings, last = self.experiment.evaluation, step == self.experiment.training.num_steps
        found = validate(
            self.experiment,
            self.corpus,
            states.evaluated(self.state),
            sequences=settings.max_sequences if last else settings.periodic,
            compiled=self.programs,
            check=self.stop.check,
            report=report,
        )
        self.recorder.say(f"step {step}  validation {found}")
        self.scored = step, found.score
        self.recorder.write(step, {f"validation/{k}": v for k, v in found.record().items()})
        return found

    def _sample(self, step: int) -> None:
        sampling = self.experiment.sampling
        self.recorder.status("sampling")
        if "sample" not in self.programs:
            length = self.experiment.config.data.length
            self.programs["sample"] = Sampler.make(self.experiment, sampling, length)
        records = []
        for record in self.programs["sample"].records(
            states.evaluated(self.state),
            seed=self.experiment.config.seed,
            count=sampling.num_samples,
            num_steps=sampling.num_steps,
            given=self._given(sampling.num_samples),
        ):
            records.append(record)
            self.stalls.beat(f"sampling {len(records)}/{sampling.num_samples} at step {step}")
            self.stop.check()
        if distributed.leader():
            with writing.append(self.workdir / metrics.SAMPLES) as stream:
                stream.writelines(json_lines.line({"step": step, **r}) for r in records)
        for record in records[:4]:
            self.recorder.say(f"step {step}  sample  {record['text']!r}")
        self.recorder.write(step, {"samples": "\n".join(r["text"] for r in records)})

    def _given(self, count: int) -> dict[str, Any]:
        """Signals of validation rows, where the model draws tokens to one that is given."""
        if not self.experiment.channels or self.experiment.process.parts:
            return {}
        rows = Spread(self.corpus.validation, count)
        return {"signal": np.stack([rows[i]["signal"] for i in range(len(rows))])}

    def _save(self, step: int) -> None:
        self.stalls.beat(f"saving step {step}")
        meta = {
            "step": step,
            "owed": [work for work in self.owed if work != "save"],
            "data": {"next_step": step},
            "config": self.experiment.config.to_dict(),
            "corpus": self.corpus.fingerprint,
            "tokenizer": self.corpus.tokenizer.digest,
            **self.recorder.saved(),
        }
        score = self.scored[1] if self.scored and self.scored[0] == step else None
        self.checkpoints.save(self.state, meta, score)

    def _best(self) -> dict[str, Any]:
        """The checkpoint with the best validation while training, where that is kept."""
        if not self.experiment.training.keep_best:
            return {}
        return {"best_step": self.checkpoints.retention.first}

    def _leave(self) -> dict[str, Any]:
        """Save where the run stands, and end."""
        began = time.monotonic()
        if self.step and self.checkpoints.latest() != self.step:
            self._save(self.step)
        self.recorder.close()
        self.checkpoints.close()
        self.recorder.say(
            f"stopped at step {self.step} of {self.experiment.training.num_steps}, saved in "
            f"{time.monotonic() - began:.1f} s; the same command goes on"
        )
        return {"step": self.step, "stopped": True}

    def _finish(self, step: int) -> dict[str, Any]:
        if self.checkpoints.latest() != step:
            self._save(step)
        found = self._evaluate(step)
        self._sample(step)
        unigram = self.corpus.unigram_entropy("validation")
        progress = self.recorder.progress
        progress.say(f"validation {found.beside(unigram)}")
        summary = {
            "step": step,
            "seconds": time.monotonic() - progress.began,
            "tokens_per_second": self.recorder.speed.overall,
            "parameters": states.count(self.state.params),
            "goodput": self.recorder.goodput.read().get("speed/goodput"),
            **self._best(),
            **found.summary(unigram),
        }
        self.recorder.close()
        self.checkpoints.close()
        if distributed.leader():
            reporting.summarise(self.workdir, self.experiment.config.recipe, summary)
        return summary


def train(
    config: ConfigDict, workdir: Path, profile: int = 0, stalls: Stalls | None = None
) -> dict[str, Any]:
    """Train in a workdir, resuming what is there.

    Args:
      config: of the run.
      workdir: its folder.
      profile: so many updates are traced.
      stalls: what to do where nothing gets on; None = nothing.

    Raises:
      UserError: for whatever is wrong with the input, before anything is written.
      RunError: if the run cannot go on; what was saved is untouched.
    """
    workdir = at(workdir)
    with Stop() as stop, contextlib.ExitStack() as held:
        try:
            return Run(config, workdir, profile, stop, stalls or Stalls(0, False), held).execute()
        except Stopped:
            say("ldd_jax: stopped before the first update; there was nothing to save")
            return {"step": None, "stopped": True}
        except OSError as error:
            what = error.strerror or str(error)
            raise RunError(
                f"{workdir}: {what} ({error.filename or 'writing'}); what was saved is untouched, "
                "the same command goes on from the newest checkpoint"
            ) from error
