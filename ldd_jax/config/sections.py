"""Sections of a config that no other room owns: how a run trains, is evaluated and sampled."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldd_jax import samplers
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, at_least_one, nearest
from ldd_jax.core.types import Process
from ldd_jax.core.vocabulary_tiles import AUTO, check_tile
from ldd_jax.samplers.base import Latent
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.loop import TAILS


@registry.register("training", "training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How long, how much at a time, and what is written when (in updates; 0 = only at the end).

    Attributes:
      num_steps: updates of the whole run.
      batch_size: rows of an update, on all devices together.
      accumulate: microbatches that an update is made of, one after the other.
      ema_decay: of the averaged parameters, which are evaluated and sampled.
      log_every: updates between lines of the loss.
      eval_every: updates between validations.
      sample_every: updates between rounds of samples.
      checkpoint_every: updates between checkpoints.
      keep: checkpoints that stay on disk, the newest ones.
      max_skipped: so many updates in a row whose loss or gradient is not finite, each of which is
        skipped, end the run.
      initial: a workdir (or an import) whose averaged parameters the run begins with.
    """

    num_steps: int = 1000
    batch_size: int = 64
    accumulate: int = 1
    ema_decay: float = 0.9999
    log_every: int = 50
    eval_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 500
    keep: int = 2
    max_skipped: int = 10
    initial: str = ""

    def __post_init__(self):
        positive = ("num_steps", "batch_size", "accumulate", "log_every", "keep", "max_skipped")
        at_least_one(self, *positive)
        if self.num_steps >= 2**31:  # updates are counted in int32
            raise ValueError(f"num_steps is {self.num_steps}; it must be below 2^31")
        for name in ("eval_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; 0 = never, n = every n steps")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )


@registry.register("evaluation", "evaluation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How the likelihood of a split is bounded.

    Attributes:
      passes: network passes per bound; 2 = the second one gets the latent of the first.
      draws: times drawn per sequence.
      batch_size: rows at a time, on all devices together.
      max_sequences: rows scored at most, spread over the split; 0 = all.
      periodic_sequences: the same for validations while a run trains; the one at its end, which the
        summary tells, is not held to it.
    """

    passes: int = 1
    draws: int = 1
    batch_size: int = 64
    max_sequences: int = 0
    periodic_sequences: int = 1024

    def __post_init__(self):
        at_least_one(self, "passes", "draws", "batch_size")
        for name in ("max_sequences", "periodic_sequences"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (all) or more")

    @property
    def periodic(self) -> int:
        """Sequences of a validation while training; 0 = all."""
        return min(filter(None, (self.max_sequences, self.periodic_sequences)), default=0)


@registry.register("sampling", "sampling")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Defaults of the `sample` command and of samples during training.

    Attributes:
      guidance: strength of the condition; 1 = none added.
      num_steps: of the sampler.
      num_samples: how many are drawn.
      batch_size: samples at a time.
      tail: the last call, which removes what noise is left: sample, greedy or none.
      tile: rows of predictions that exist at a time; 0 = all, -1 = chosen by rows and vocabulary.
    """

    step: Any = registry.component("step", samplers.Ancestral)
    grid: Any = registry.component("grid", samplers.LinearGrid)
    readout: Any = registry.component("readout", Readout)
    latent: Any = registry.component("latent", Latent)
    blocks: Any = registry.component("blocks", samplers.Whole)
    guidance: float = 1.0
    num_steps: int = 64
    num_samples: int = 8
    batch_size: int = 32
    tail: str = "sample"
    tile: int = AUTO

    def __post_init__(self):
        at_least_one(self, "num_steps", "num_samples", "batch_size")
        check_tile(self.tile)
        if self.tail not in TAILS:
            raise ValueError(f"tail {self.tail!r}: {nearest(self.tail, TAILS)}")


def check_sampler(sampling: Sampling, process: Process, model: Any) -> None:
    """Refuse a step rule that cannot run with this process, network or latent.

    Args:
      sampling: the rule, its blocks and latent.
      process: the forward process.
      model: config of the network.

    Raises:
      UserError: saying why.
    """
    carried = model.latent and not sampling.latent.off
    try:
        sampling.step.check(process, latent=carried, timed=model.time_conditioning)
        sampling.blocks.check(process)
        if process.points and sampling.tail == "greedy":
            raise ValueError(
                "tail greedy is of tokens; the states of this process are points: none takes the "
                "largest coordinate, sample draws from the prediction"
            )
    except ValueError as error:
        raise UserError(str(error)) from error
