"""Train and evaluate: one loop, sharding always on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ldd_jax import experiment as experiments
from ldd_jax import scoring
from ldd_jax.core import registry
from ldd_jax.core.checks import require
from ldd_jax.data import Corpus, batches, load_tokenizer
from ldd_jax.evaluation import curves, estimators, likelihood
from ldd_jax.experiment import Experiment
from ldd_jax.generate import Sampler
from ldd_jax.planning import chips, cost
from ldd_jax.training import distributed, sharding
from ldd_jax.training import metrics as writers
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.workdir import Interval, check_tokenizer, claim, open_workdir

# Steps of a process before a profile begins: compiling and warming up.
PROFILE_AFTER = 3


def evaluate(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    *,
    split: str = "validation",
    passes: int | None = None,
    draws: int | None = None,
    estimator: str = estimators.NELBO,
    prompt: int = 0,
    compiled: dict | None = None,
) -> likelihood.Estimate:
    """The bound of a split, given the first `prompt` tokens of each row; `compiled` keeps programs.

    Raises:
      UserError: for an estimator that this model has not.
    """
    settings = experiment.evaluation
    passes = passes or settings.passes
    exact = experiment.objective.exact
    draws = 1 if exact else draws or settings.draws  # nothing is drawn
    rows = corpus.rows(split)
    pieces = sharding.shards(experiment.mesh)
    size = -(-min(settings.batch_size, len(rows)) // pieces) * pieces
    compiled = {} if compiled is None else compiled
    program = (passes, estimator)
    if program not in compiled:
        compiled[program] = scoring.program(experiment, passes, estimator)
    stream = batches(
        rows,
        batch_size=size,
        shuffle=False,
        repeat=False,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    limit = settings.max_sequences and -(-settings.max_sequences // size)
    return likelihood.estimate(
        compiled[program],
        params,
        (kept(b, prompt) for i, b in enumerate(stream) if not limit or i < limit),
        key=experiment.key(2),
        passes=passes,
        draws=draws,
        boundary=float(experiment.process.boundary()),
        put=lambda arrays: sharding.put(experiment.mesh, arrays),
        exact=exact,
        estimator=estimator,
        prompt=prompt,
    )


def kept(arrays: dict[str, np.ndarray], prompt: int) -> dict[str, np.ndarray]:
    """A batch whose first `prompt` tokens are given and not scored."""
    if not prompt:
        return arrays
    given = np.arange(arrays["z0"].shape[1]) < prompt
    weight = np.where(given, 0, arrays["weight"]).astype(arrays["weight"].dtype)
    return arrays | {"keep": arrays["keep"] | given, "weight": weight}


class Run:
    """One training run in a workdir; `execute` resumes where the last one stopped."""

    def __init__(self, config: ConfigDict, workdir: Path, profile: int = 0):
        self.profile, self.tracing = profile, False
        if distributed.leader():
            open_workdir(workdir, config)
        self.workdir = workdir
        saved = workdir / "tokenizer"
        has_tokenizer = (saved / "tokenizer.json").is_file()
        data = registry.build("data", config.data)
        self.corpus: Corpus = data.load(load_tokenizer(saved) if has_tokenizer else None)
        self.experiment = experiments.build(config, self.corpus.tokenizer)
        experiments.check_classes(self.experiment, self.corpus.classes)
        experiments.check_batch(self.experiment)
        self.update = self.experiment.update
        like = states.abstract(self.experiment.model, self.update.optimizer, self.experiment.mesh)
        require(
            self.experiment.training.batch_size <= len(self.corpus.train),
            f"training.batch_size {self.experiment.training.batch_size} is larger than the "
            f"training split ({len(self.corpus.train)} rows); lower it or give a longer text",
        )
        if distributed.leader():
            claim(workdir, config, self.corpus.tokenizer)
        distributed.barrier("workdir")
        self.checkpoints = Checkpoints(workdir, keep=self.experiment.training.keep)
        self.interval = Interval()
        self.programs: dict = {}
        newest = self.checkpoints.latest()
        if newest is None:
            self.state = states.initial(
                self.experiment.model,
                self.update.optimizer,
                self.experiment.mesh,
                self.experiment.key(0),
            )
            self.first = 0
        else:
            wanted = self.experiment.training.num_steps
            require(
                newest <= wanted,
                f"{workdir} is at step {newest} already; training.num_steps={wanted} is behind it",
            )
            self.state, meta = self.checkpoints.restore(like)
            check_tokenizer(self.experiment, meta, workdir)
            require(
                meta["corpus"] == self.corpus.fingerprint,
                f"{config.data.path} has changed since {workdir} was trained on it "
                f"({meta['corpus']} then, {self.corpus.fingerprint} now); give another --workdir",
            )
            self.first = int(meta["step"])
            self.interval = Interval(**meta["interval"])
        if distributed.leader():
            experiments.save_config(config, workdir)
        self.like = like

    def execute(self) -> dict[str, Any]:
        """Train to the end, evaluate, sample, plot; returns the summary that is also on disk."""
        settings = self.experiment.training
        tokens = settings.batch_size * self.experiment.config.data.length
        self.progress = writers.Progress(
            self.first, settings.num_steps, tokens, quiet=not distributed.leader()
        )
        self.writers: list[writers.Writer] = []
        if distributed.leader():
            self.writers = [
                writers.JsonLines(
                    self.workdir / "metrics.jsonl", self.first, self.first == settings.num_steps
                ),
                writers.TensorBoard(self.workdir / "tensorboard", self.first),
                self.progress,
            ]
        operations = cost.model_operations(self.experiment, tokens)
        peak = chips.peak(self.experiment.mesh.devices.flat)
        self.speed = writers.Throughput(tokens, operations, peak)
        self._announce()

        def train_step(state, arrays, key):  # named, for profiles and compile logs
            return self.update(state, arrays, key)

        step_fn = jax.jit(
            sharding.on(self.experiment.mesh, train_step),
            donate_argnums=0,
            out_shardings=(states.shardings(self.like), None),
        )
        stream = batches(
            self.corpus.train,
            batch_size=settings.batch_size,
            seed=self.experiment.config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        stream.set_state({"next_step": self.first})
        key = sharding.everywhere(self.experiment.mesh, self.experiment.key(1))
        pending = None
        for step in range(self.first + 1, settings.num_steps + 1):
            self._trace(step - self.first)
            arrays = sharding.put(self.experiment.mesh, next(stream))
            self.state, new = step_fn(self.state, arrays, key)
            if pending is not None:  # read the step before only now that this one is under way
                self._record(*pending)
            pending = (step, new)
            last = step == settings.num_steps
            if due := [w for w in self._due(step) if not last]:
                self._record(*pending)
                pending = None
                for work in due:
                    work(step)
                self.speed.rest()
        self._trace(self.profile + PROFILE_AFTER)
        if pending is not None:
            self._record(*pending)
        return self._finish(settings.num_steps)

    def _trace(self, number: int) -> None:
        """Start or end the profile at the `number`-th step of this process, if one was asked."""
        if self.profile and number == PROFILE_AFTER:
            jax.profiler.start_trace(str(self.workdir / "profile"))
            self.tracing = True
        elif self.tracing and number >= PROFILE_AFTER + self.profile:
            jax.block_until_ready(self.state)
            jax.profiler.stop_trace()
            self.tracing = False
            self.progress.say(f"profile: {self.workdir / 'profile'}")

    def _due(self, step: int) -> list[Callable[[int], Any]]:
        settings = self.experiment.training
        table: tuple[tuple[int, Callable[[int], Any]], ...] = (
            (settings.eval_every, self._evaluate),
            (settings.sample_every, self._sample),
            (settings.checkpoint_every, self._save),
        )
        return [work for every, work in table if every and step % every == 0]

    def _write(self, step: int, values: dict[str, Any]) -> None:
        for writer in self.writers:
            writer.write(step, values)

    def _record(self, step: int, values: dict[str, Any]) -> None:
        self.interval.add(values)
        self.progress.step()
        self.speed.step()
        if step % self.experiment.training.log_every == 0:
            self._write(step, self.interval.means() | self.speed.read())
            self.interval = Interval()

    def _announce(self) -> None:
        self.progress.say(self.corpus.describe())
        e = self.experiment
        self.progress.say(
            f"{e.config.recipe}: {states.count(self.state.params):,} parameters, "
            f"{jax.device_count()} {jax.default_backend()} device(s), "
            f"batch {e.training.batch_size} x {e.config.data.length} tokens, "
            f"updates {self.first} to {e.training.num_steps}"
        )

    def _evaluate(self, step: int) -> likelihood.Estimate:
        found = evaluate(self.experiment, self.corpus, self.state.ema, compiled=self.programs)
        self.progress.say(f"step {step}  validation {found}")
        self._write(step, {f"validation/{k}": v for k, v in found.record().items()})
        return found

    def _sample(self, step: int) -> list[dict[str, Any]]:
        sampling = self.experiment.sampling
        if "sample" not in self.programs:
            length = self.experiment.config.data.length
            self.programs["sample"] = Sampler.make(self.experiment, sampling, length)
        records = list(
            self.programs["sample"].records(
                self.state.ema,
                seed=self.experiment.config.seed,
                count=sampling.num_samples,
                num_steps=sampling.num_steps,
            )
        )
        for record in records[:4]:
            self.progress.say(f"step {step}  sample  {record['text']!r}")
        self._write(step, {"samples": "\n".join(r["text"] for r in records)})
        return records

    def _save(self, step: int) -> None:
        meta = {
            "step": step,
            "interval": dataclasses.asdict(self.interval),
            "data": {"next_step": step},
            "config": self.experiment.config.to_dict(),
            "corpus": self.corpus.fingerprint,
            "tokenizer": self.corpus.tokenizer.digest,
        }
        self.checkpoints.save(self.state, meta)

    def _finish(self, step: int) -> dict[str, Any]:
        if self.checkpoints.latest() != step:
            self._save(step)
        found = self._evaluate(step)
        self._sample(step)
        unigram = self.corpus.unigram_entropy("validation")
        below = 100 * (1 - found.nats / unigram)
        self.progress.say(
            f"validation {found.name} {found.nats:.4f} +- {found.se:.4f} nats/token is "
            f"{below:.1f} % below the unigram entropy ({unigram:.4f}) of the same tokens; "
            f"{found.meaning}"
        )
        elapsed = time.monotonic() - self.progress.began
        summary = {
            "step": step,
            "unigram_entropy": unigram,
            "percent_below_unigram": below,
            "seconds": elapsed,
            "tokens_per_second": self.progress.rate(step),
            "parameters": states.count(self.state.params),
            **found.record(),
        }
        for writer in self.writers:
            writer.close()
        self.checkpoints.close()
        if distributed.leader():
            self._summarise(summary, unigram)
        return summary

    def _summarise(self, summary: dict[str, Any], unigram: float) -> None:
        text = json.dumps(writers.finite(summary), indent=2)
        (self.workdir / "summary.json").write_text(text + "\n")
        curves.plot(
            writers.read_metrics(self.workdir / "metrics.jsonl"),
            self.workdir / "curve.png",
            title=self.experiment.config.recipe,
            baseline=unigram,
        )
        print(f"curve: {self.workdir / 'curve.png'}   summary: {self.workdir / 'summary.json'}")


def train(config: ConfigDict, workdir: Path, profile: int = 0) -> dict[str, Any]:
    """Train in `workdir`, resuming what is there; `profile` steps are traced."""
    return Run(config, Path(workdir), profile).execute()


def load(
    workdir: Path, *, ema: bool = True, step: int | None = None
) -> tuple[Experiment, Any, int]:
    """The experiment of a workdir, its (averaged) parameters and their step."""
    experiment = experiments.restore(Path(workdir))
    checkpoints = Checkpoints(Path(workdir), read_only=True)
    like = states.abstract(experiment.model, experiment.update.optimizer, experiment.mesh).params
    params, meta = checkpoints.restore_params(like, ema=ema, step=step)
    check_tokenizer(experiment, meta, workdir)
    return experiment, params, int(meta["step"])
