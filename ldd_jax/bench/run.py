"""Fill the grid of a bench: one compiled program for all numbers of steps and all seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ldd_jax.bench import cells, judging, timing
from ldd_jax.bench.baselines import BASELINES, QUOTES, training_tokens
from ldd_jax.bench.jobs import Contender, Job
from ldd_jax.bench.measures import Measures
from ldd_jax.config import plugins
from ldd_jax.config.sections import check_sampler
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.console import ERR, harmless, say
from ldd_jax.core.registry import names, section
from ldd_jax.data import Corpus
from ldd_jax.evaluation.judges import Judge
from ldd_jax.inference import carried, loading, own_law
from ldd_jax.inference.generate import Sampler
from ldd_jax.inference.settings import LATENTS
from ldd_jax.samplers.loop import fetched
from ldd_jax.training import distributed

# The sampler's own bound, where it is not known.
OWN: dict[str, Any] = {"own": None, "own_se": None, "own_exact": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to compare; see the flags of the `bench` command."""

    workdirs: list[Path]
    output: Path
    samplers: list[str]
    steps: list[int]
    temperatures: list[float]
    latents: list[str]
    seeds: list[int]
    judges: list[str]
    num_samples: int
    length: int = 0
    every: bool = False
    mauve: bool = False
    show_data: bool = False
    bound_sequences: int = 0


class Bench:
    """A grid in a folder; `execute` computes what is not there yet."""

    def __init__(self, settings: Settings):
        self.settings = settings
        labels = [w.name for w in settings.workdirs]
        unique = len(set(labels)) == len(labels)
        self.contenders = [
            Contender(w.name if unique else str(w), *loading.load_trained(w))
            for w in settings.workdirs
        ]
        for contender in self.contenders:
            contender.experiment.check_alone("bench")
        first = self.contenders[0]
        for other in self.contenders[1:]:
            require(
                other.experiment.tokenizer.digest == first.experiment.tokenizer.digest,
                f"{other.label} and {first.label} have different tokenizers: their nats per token "
                "cannot be compared; bench them apart",
            )
        self.tokenizer = first.experiment.tokenizer
        self.length = settings.length or int(first.experiment.config.data.length)
        self._corpus: Corpus | None = None
        self._programs: dict[tuple, Sampler] = {}
        self._bounds: dict[tuple, Any] = {}
        self._own: dict[tuple, dict[str, Any]] = {}
        self._warm: set[tuple] = set()
        for text in settings.samplers:  # before anything is loaded
            self._check(text)
        # The one that reads the corpus comes last: a folder that holds no judge is refused before.
        late = sorted(dict.fromkeys(settings.judges), key=lambda name: name == judging.NGRAM)
        made = {name: judging.make_judge(name, self.corpus) for name in late}
        judges: list[Judge] = [made[name] for name in settings.judges]
        self.measures = Measures(self.corpus(), judges, settings.mauve)
        self.store = cells.Store(
            settings.output,
            {
                "num_samples": settings.num_samples,
                "length": self.length,
                "tokenizer": self.tokenizer.digest,
                "corpus": self.corpus().fingerprint,
                "judges": [j.fingerprint for j in judges],
                **({"mauve": True} if settings.mauve else {}),
                **({"bound_sequences": n} if (n := settings.bound_sequences) else {}),
            },
        )
        self.jobs = self._jobs()

    def _check(self, text: str) -> None:
        """Refuse a sampler that no run allows, as far as that is known without tracing it."""
        why = ""
        for job in (j for c in self.contenders for j in self._of(c, text)):
            e = job.contender.experiment
            try:
                check_sampler(job.sampling, e.process, e.model)
            except UserError as error:
                why = why or str(error)
            else:
                return
        require(self.settings.every, f"sampler {text} fits none of the workdirs: {why}")

    def corpus(self) -> Corpus:
        """The corpus of the first run."""
        if self._corpus is None:
            self._corpus = judging.corpus_of(self.contenders[0].experiment)
        return self._corpus

    def _jobs(self) -> list[Job]:
        """The grid; a sampler that does not fit a run is left out aloud.

        Raises:
          UserError: for a sampler asked for by name that fits none of the runs.
        """
        out: dict[tuple, Job] = {}
        reasons: dict[tuple, str] = {}
        refused: dict[str, str] = {}
        for text in self.settings.samplers:
            fits = False
            for job in (j for c in self.contenders for j in self._of(c, text)):
                where = (job.contender.group, job.latent)
                if all(cell in self.store for cell in job.cells()):
                    reasons[where] = ""
                elif where not in reasons:
                    reasons[where] = self._refusal(job)
                    if reasons[where]:
                        recipe = job.contender.experiment.config.recipe
                        note = f"left out: {text} on {recipe}, latent {job.latent}"
                        say(f"{note}: {reasons[where]}", error=True)
                if not reasons[where]:
                    fits = True
                    readout = job.sampling.readout
                    out.setdefault((job.contender.label, job.name, readout, job.latent), job)
            if not fits:
                refused[text] = next(iter(reasons.values()))
            reasons.clear()
        wanted = list(refused) if not self.settings.every else []
        require(
            not wanted and bool(out),
            f"sampler {', '.join(wanted or refused)} fits none of the workdirs: "
            + next(iter(refused.values()), ""),
        )
        return list(out.values())

    def _of(self, contender: Contender, text: str) -> Iterator[Job]:
        s, experiment = self.settings, contender.experiment
        has_latent = experiment.model.latent
        for temperature in s.temperatures:
            base = dataclasses.replace(
                experiment.sampling,
                readout=dataclasses.replace(experiment.sampling.readout, temperature=temperature),
                batch_size=min(experiment.sampling.batch_size, s.num_samples),
            )
            chosen = cells.parse_sampler(text, base)
            name = chosen.step.registered[1]
            # Cells of a step in a file of the user's own are those of that file.
            code = plugins.digests("sampling", section(chosen).to_dict()).values()
            name = ":".join([name, *cells.told(text)]) + "".join(f"@{c[:8]}" for c in code)
            # A step with a clock of its own knows by itself when it is done.
            steps = tuple(s.steps) if chosen.step.counts_steps else (None,)
            for latent in s.latents if has_latent else [cells.NO_LATENT]:
                mode = dataclasses.replace(chosen.latent, **LATENTS.get(latent, {}))
                sampling = dataclasses.replace(chosen, latent=mode)
                yield Job(contender, name, sampling, latent, steps, tuple(s.seeds))

    def _program(self, job: Job) -> Sampler:
        """One program for runs that differ in their seed alone."""
        key = self._key(job)
        if key not in self._programs:
            self._programs[key] = Sampler.make(job.contender.experiment, job.sampling, self.length)
        return self._programs[key]

    def _key(self, job: Job) -> tuple:
        return (job.contender.group, job.name, job.sampling.readout, job.latent)

    def _refusal(self, job: Job) -> str:
        """Why the sampler cannot run there, without compiling it; "" if it can."""
        call = lambda params: self._batch(job, params, 0, 0, 1)
        try:
            jax.eval_shape(call, job.contender.params)
        except (UserError, ValueError) as error:
            return " ".join(str(error).split())
        return ""

    def _batch(
        self, job: Job, params: Any, seed: int, first: int, steps: int, fixed: Any = None
    ) -> Any:
        nothing = np.zeros(self.length, np.int32)
        fixed = nothing > 0 if fixed is None else fixed
        return self._program(job).batch(params, seed, first, nothing, fixed, steps)[0]

    def execute(self) -> list[dict[str, Any]]:
        """All cells, the new ones written as they come."""
        todo = [(job, c) for job in self.jobs for c in job.cells()]
        cost = lambda cell: cell["steps"] or self.length
        total, done = (
            sum(cost(c) for _, c in todo if fresh or c in self.store) for fresh in (True, False)
        )
        self._baselines()
        quiet = not distributed.leader()
        look: Any = dict(unit="call", file=ERR, dynamic_ncols=True, disable=quiet)
        distributed.barrier("bench")  # all have read what is there
        with tqdm(total=total, initial=done, **look) as bar:
            for job, cell in todo:
                if cell in self.store:
                    continue
                bar.set_description(
                    harmless(
                        f"{cell['workdir']} {cell['sampler']} {cell['latent']} "
                        f"{cell['steps'] or ''}"
                    )
                )
                self.store.add(self._cell(job, cell))
                bar.update(cost(cell))
        return self.store.cells

    def _cell(self, job: Job, cell: dict[str, Any]) -> dict[str, Any]:
        params, count = job.contender.params, self.settings.num_samples
        steps = cell["steps"] or 1
        if self._key(job) not in self._warm:  # compile outside the clock
            jax.block_until_ready(self._batch(job, params, cell["seed"], 0, 1).z)
            self._warm.add(self._key(job))
        found = timing.draw(
            lambda first: fetched(self._batch(job, params, cell["seed"], first, steps)),
            self._begun(job, params, cell["seed"], steps),
            count,
            job.sampling.batch_size,
        )
        return (
            cell
            | self._own_bound(job, cell)
            | {
                **({} if job.sampling.blocks.exact else {"exact": False}),
                "calls": float(found.calls[:count].mean()),
                **found.record(),
                **self.measures(
                    found.tokens[:count], cell["seed"], job.contender.experiment.tokens.mask_token
                ),
            }
        )

    def _begun(self, job: Job, params: Any, seed: int, steps: int) -> Any:
        """What makes the first token or block of a batch alone; None where a row comes at once."""
        sampling, experiment = job.sampling, job.contender.experiment
        if experiment.process.schedule is None:  # left to right
            key = (*self._key(job), "first")
            if key not in self._programs:
                self._programs[key] = Sampler.make(experiment, sampling, 1)
            one, none = self._programs[key], np.zeros(1, np.int32)
            run = lambda first: fetched(one.batch(params, seed, first, none, none > 0, 1)[0])
            if key not in self._warm:
                run(0)
                self._warm.add(key)
            return run
        window = min(self.length, int(experiment.config.data.length))
        end = sampling.blocks.first(self.length, window, experiment.block)
        if end == self.length:
            return None
        rest = np.arange(self.length) >= end  # given, so that no block of it is made
        return lambda first: fetched(self._batch(job, params, seed, first, steps, rest))

    def _own_bound(self, job: Job, cell: dict[str, Any]) -> dict[str, Any]:
        """The likelihood of the very sampler of a cell on validation rows, where it is known."""
        n, e, s = self.settings.bound_sequences, job.contender.experiment, job.sampling
        if not n:
            return {}
        known = own_law.is_known(e, s) and self.length == int(e.config.data.length)
        if not known:
            return OWN
        key = (job.contender.group, job.name, s.readout, job.latent)
        place = (job.contender.label, *key, cell["steps"])
        if place not in self._own:  # whatever the seed of the samples
            if key not in self._bounds:
                self._bounds[key] = carried.program(e, s)
            s = dataclasses.replace(s, num_steps=cell["steps"] or s.num_steps)
            params, run = job.contender.params, self._bounds[key]
            found = carried.evaluate_split(e, self.corpus(), params, s, run=run, sequences=n)
            self._own[place] = dict(own=found.nats, own_se=found.se, own_exact=found.exact)
        return self._own[place]

    def _baselines(self) -> None:
        s, corpus = self.settings, self.corpus()
        counts = None
        for name, make in BASELINES.items():
            for seed in s.seeds:
                cell: dict[str, Any] = dict.fromkeys(cells.KEY) | {
                    "workdir": "",
                    "recipe": "",
                    "group": name,
                    "process": "none",
                    "sampler": name,
                    "latent": cells.NO_LATENT,
                    "seed": seed,
                }
                if cell in self.store:
                    continue
                if counts is None:
                    train = training_tokens(corpus)
                    counts = np.bincount(train.reshape(-1), minlength=self.tokenizer.size)
                tokens = make(corpus, counts, s.num_samples, self.length, seed)
                same = {"calls": 0.0, **timing.NONE}
                same |= OWN if s.bound_sequences else {}
                found = self.measures(tokens, seed)
                if name in QUOTES and not s.show_data:
                    found["sample"] = ""
                self.store.add(cell | same | found)


def sampler_names(text: str) -> list[str]:
    """`--samplers`: a list; `all` is every registered step."""
    return names("step") if text == "all" else list(dict.fromkeys(text.split(",")))
