"""What a bench fills its grid with: trained runs, and the cells of one compiled program."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.config.stored import fingerprint


@dataclasses.dataclass(frozen=True)
class Contender:
    """A trained run."""

    label: str
    experiment: Experiment
    params: Any
    checkpoint: int

    @functools.cached_property
    def group(self) -> str:
        """Equal for runs that differ in their seed alone: they share programs and table rows."""
        config = self.experiment.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = 0
        return f"{fingerprint(config)}-{self.experiment.tokenizer.digest}"


@dataclasses.dataclass(frozen=True)
class Job:
    """All cells of one compiled program and one run."""

    contender: Contender
    name: str
    sampling: Sampling
    latent: str
    steps: tuple[int | None, ...]
    seeds: tuple[int, ...]

    def cells(self) -> Iterator[dict[str, Any]]:
        """The known part of every cell."""
        experiment = self.contender.experiment
        for steps in self.steps:
            for seed in self.seeds:
                yield {
                    "workdir": self.contender.label,
                    "recipe": experiment.config.recipe,
                    "group": self.contender.group,
                    "model_seed": experiment.config.seed,
                    "config": fingerprint(experiment.config),
                    "checkpoint": self.contender.checkpoint,
                    "process": experiment.config.process.name,
                    "sampler": self.name,
                    "steps": steps,
                    "temperature": self.sampling.readout.temperature,
                    "latent": self.latent,
                    "seed": seed,
                }
