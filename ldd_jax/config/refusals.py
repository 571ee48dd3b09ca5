"""What is wrong with a run's config, found before any data are read."""

from __future__ import annotations

from typing import Any

import jax
from ml_collections import ConfigDict

from ldd_jax.config.experiment import Experiment, StandIn, build
from ldd_jax.core import registry
from ldd_jax.core.checks import require
from ldd_jax.data import Tokenizer
from ldd_jax.training import sharding


def check(config: ConfigDict, tokenizer: Tokenizer | None = None) -> Experiment:
    """Refuse whatever is wrong in a config but for what the data alone can tell; none are read.

    Args:
      config: of a run.
      tokenizer: where it is known already; else the largest that the config may give stands in.

    Returns:
      The experiment, with the tokenizer or the stand-in, which knows its `size` alone.

    Raises:
      UserError: in words.
    """
    data = registry.build("data", config.data)
    data.check()
    stand_in: Any = tokenizer or StandIn(data.most_ids())
    experiment = build(config, stand_in)
    check_classes(experiment, tuple(config.data.get("classes", ())))
    check_batch(experiment)
    check_memory(experiment)
    return experiment


def check_batch(experiment: Experiment) -> None:
    """Refuse a batch that shards, microbatches and the context's gate cannot divide.

    Raises:
      UserError: with the numbers.
    """
    training, mesh = experiment.training, experiment.mesh
    pieces = sharding.shards(mesh) * training.accumulate
    require(
        training.batch_size % pieces == 0,
        f"training.batch_size {training.batch_size} is not a multiple of {pieces} (data shards "
        f"{sharding.shards(mesh)} x accumulate {training.accumulate})",
    )
    experiment.objective.context.check(training.batch_size // pieces)


def check_memory(experiment: Experiment) -> None:
    """Refuse an average in memory that hosts of these devices do not have.

    Raises:
      UserError: with the kinds that there are.
    """
    kinds = [memory.kind for memory in jax.local_devices()[0].addressable_memories()]
    require(
        not experiment.training.ema_on_host or sharding.HOST in kinds,
        f"training.ema_on_host needs memory of kind {sharding.HOST!r}; the devices here have "
        + ", ".join(kinds),
    )


def check_channels(experiment: Experiment, channels: int) -> None:
    """Refuse a network whose signal is not that of the data.

    Raises:
      UserError: with both numbers.
    """
    has, name = experiment.channels, experiment.config.data.get("name")
    require(
        channels == has or bool(channels and has),
        f"the data ({name}) have no signal, and the network takes one (data chain, pairs, shapes)"
        if has
        else f"the data ({name}) have a signal, and the network takes none (method=joint, given)",
    )
    require(
        channels == has,
        f"the signal of the data has {channels} channels, but model.channels is {has}; set it (and "
        f"process.signal.channels) to {channels}",
    )


def check_classes(experiment: Experiment, classes: tuple[str, ...]) -> None:
    """Refuse a network whose classes are not those of the data.

    Raises:
      UserError: with both numbers.
    """
    number = experiment.model.num_classes
    require(
        len(classes) in (0, number),
        f"the data have {len(classes)} classes, but model.num_classes is {number}; set it to "
        f"{len(classes)}",
    )
