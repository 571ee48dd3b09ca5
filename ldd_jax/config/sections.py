"""Sections of a config that no other room owns: how a run trains, is evaluated and sampled."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldd_jax import samplers
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, at_least_one, nearest
from ldd_jax.core.types import Process
from ldd_jax.core.vocabulary_tiles import AUTO, check_tile
from ldd_jax.samplers.latents import Latent
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
      ema_decay: of the averaged parameters, which are evaluated and sampled; 0 = none are kept,
        in memory and in checkpoints, and the parameters themselves stand in their place.
      ema_on_host: the average lies in the memory of the devices' hosts; it goes to the devices and
        back in every update, one parameter after the other.
      log_every: updates between lines of the loss.
      eval_every: updates between validations.
      sample_every: updates between rounds of samples.
      checkpoint_every: updates between checkpoints.
      keep: checkpoints that stay on disk, the newest ones.
      keep_every: those of every so many updates stay as well; 0 = none for that.
      keep_best: so many with the lowest loss of the validation at their update stay as well; 0 =
        none for that.
      max_skipped: so many updates in a row whose loss or gradient is not finite, each of which is
        skipped, end the run.
      wandb: a project of Weights & Biases that gets the metrics too (extra wandb); empty = none.
      initial: a workdir (or an import) whose averaged parameters the run begins with.
    """

    num_steps: int = 1000
    batch_size: int = 64
    accumulate: int = 1
    ema_decay: float = 0.9999
    ema_on_host: bool = False
    log_every: int = 50
    eval_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 500
    keep: int = 2
    keep_every: int = 0
    keep_best: int = 0
    max_skipped: int = 10
    wandb: str = ""
    initial: str = ""

    def __post_init__(self):
        positive = ("num_steps", "batch_size", "accumulate", "log_every", "keep", "max_skipped")
        at_least_one(self, *positive)
        if self.num_steps >= 2**31:  # updates are counted in int32
            raise ValueError(f"num_steps is {self.num_steps}; it must be below 2^31")
        for name in ("eval_every", "sample_every", "checkpoint_every", "keep_every", "keep_best"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; 0 = never, n = every n steps")
        rhythm = self.eval_every, self.checkpoint_every
        if self.keep_best and not (all(rhythm) and rhythm[1] % rhythm[0] == 0):
            raise ValueError(
                f"keep_best needs validations where checkpoints are: checkpoint_every {rhythm[1]} "
                f"is no multiple of eval_every {rhythm[0]}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )

    @property
    def average(self) -> tuple[bool, bool]:
        """Whether a moving average of the parameters is kept, and whether on the hosts."""
        return self.ema_decay > 0, self.ema_on_host


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
      compact: how often a batch is halved at most as its rows end; the same samples.
    """

    step: Any = registry.component("step", samplers.Ancestral)
    grid: Any = registry.component("grid", samplers.LinearGrid)
    readout: Any = registry.component("readout", Readout)
    latent: Any = registry.component("latent", Latent)
    blocks: Any = registry.component("blocks", samplers.Whole)
    stop: Any = registry.component("stop", samplers.Never)
    guidance: float = 1.0
    num_steps: int = 64
    num_samples: int = 8
    batch_size: int = 32
    tail: str = "sample"
    tile: int = AUTO
    compact: int = 0

    def __post_init__(self):
        if self.compact < 0:
            raise ValueError(f"compact is {self.compact}; it must be 0 (off) or more halvings")
        at_least_one(self, "num_steps", "num_samples", "batch_size")
        check_tile(self.tile)
        if self.tail not in TAILS:
            raise ValueError(f"tail {self.tail!r}: {nearest(self.tail, TAILS)}")


def _field(model: Any, name: str) -> Any:
    """A field of a network that need not have it; 0 = it has none."""
    return next((getattr(model, f.name) for f in dataclasses.fields(model) if f.name == name), 0)


def block_of(model: Any) -> int:
    """Positions of a block of a network that sees its row by blocks; 0 = it does not."""
    return _field(model, "block")


def is_narrow(model: Any) -> bool:
    """Whether a network computes in a type that is narrower than that of its parameters."""
    return _field(model, "dtype") == "bfloat16"


def adapters_of(model: Any) -> tuple[str, ...]:
    """Patterns of the parameters that are trained alone where a network has adapters."""
    if not _field(model, "lora_rank"):
        return ()
    return ("*.lora_[ab]", *(["*.latent_norm.*"] if model.latent else []))


def check_compact(sampling: Sampling) -> None:
    """Refuse to leave rows out where none ends before the others.

    Args:
      sampling: the rule, its blocks and stop.

    Raises:
      ValueError: in one line.
    """
    step, blocks = sampling.step, sampling.blocks
    if not sampling.compact:
        return
    if step.no_stop or not blocks.exact:
        raise ValueError(
            "compact leaves rows out that have ended, which this sampler has no rows for"
            if step.no_stop
            else "compact does not go with keys and values that are made anew; leave it 0"
        )
    if step.clock == "grid" and not (sampling.stop.watches or blocks.stops):
        raise ValueError(
            "compact leaves out rows that have ended, and here all end together; give --stop, a "
            "sampler with a clock of its own, or --blocks=cached:stop=true"
        )


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
        sampling.blocks.check(process, block_of(model))
        sampling.blocks.check_network(latent=carried, timed=model.time_conditioning)
        sampling.stop.check(sampling.step, sampling.tail)
        check_compact(sampling)
        if process.points and sampling.tail == "greedy":
            raise ValueError(
                "tail greedy is of tokens; the states of this process are points: none takes the "
                "largest coordinate, sample draws from the prediction"
            )
    except ValueError as error:
        raise UserError(str(error)) from error
