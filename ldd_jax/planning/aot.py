"""Ahead-of-time compilation for a named TPU slice on a CPU host, and what the compiler says."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import UserError
from ldd_jax.core.compilation import unkept
from ldd_jax.inference.programs import program
from ldd_jax.planning import cost
from ldd_jax.training import sharding
from ldd_jax.training import state as states

GIB = 2.0**30


def devices(topology: str) -> list:
    """Devices of a slice that need not exist.

    Raises:
      UserError: without libtpu, or for a name that it does not know.
    """
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot describe the slice {topology!r}: {first} (planning for a slice needs "
            "pip install 'ldd-jax[tpu]'; names are such as v5e:4x4, v5p:4x4x4, v6e:16x16)"
        ) from error


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Per device: bytes by the compiler's account; seconds; the optimised program's text."""

    arguments: int
    temporary: int
    output: int
    alias: int
    peak: int
    seconds: float
    text: str

    @classmethod
    def of(cls, lowered: Any) -> Compiled:
        """Compile and read the figures."""
        began = time.monotonic()
        with unkept():
            compiled = lowered.compile()
        seconds = time.monotonic() - began
        memory = compiled.memory_analysis()
        peak = getattr(memory, "peak_memory_in_bytes", 0)
        try:
            text = compiled.as_text()
        except Exception:  # some large programs compile but cannot be printed
            text = ""
        return cls(
            arguments=memory.argument_size_in_bytes,
            temporary=memory.temp_size_in_bytes,
            output=memory.output_size_in_bytes,
            alias=memory.alias_size_in_bytes,
            peak=(peak - _of_hosts(memory))
            if peak
            else memory.argument_size_in_bytes + memory.temp_size_in_bytes,
            seconds=seconds,
            text=text,
        )


def _of_hosts(memory: Any) -> int:
    """Bytes in the memory of hosts, which the compiler counts into its peak."""
    own = memory.host_output_size_in_bytes - memory.host_alias_size_in_bytes
    return memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes + own


def train_step(experiment: Experiment, batch: int) -> Compiled:
    """The real training step for a global batch on the experiment's mesh."""
    update, mesh = experiment.update, experiment.mesh
    like = experiment.abstract(batch)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding.replicated(mesh))
    step = jax.jit(
        sharding.on(mesh, update),
        donate_argnums=0,
        out_shardings=(states.shardings(like), sharding.replicated(mesh)),
    )
    return Compiled.of(step.lower(like, cost.arrays(experiment, batch), key))


def sampler(experiment: Experiment, batch: int, length: int) -> Compiled:
    """The real sampler; one program for every number of steps.

    Args:
      experiment: on the devices to compile for.
      batch: samples, over all devices.
      length: tokens of a sample.
    """
    run = jax.jit(program(experiment, experiment.sampling, length))
    return Compiled.of(run.lower(*cost.sampler_arrays(experiment, batch, length)))


def cache(experiment: Experiment, batch: int, length: int) -> int:
    """Bytes per device of the keys and values that sampling keeps; 0 for a network that keeps none.

    Args:
      experiment: with its mesh.
      batch: samples, over all devices.
      length: tokens of a sample.
    """
    model = experiment.model
    made = experiment.sampling.blocks.padded(length, experiment.block)
    try:
        like = jax.eval_shape(
            lambda p: experiment.sampling.blocks.kept(model.bind(p), batch, made),
            experiment.abstract().params,
        )
    except (UserError, ValueError):
        return 0
    size = sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(like))
    return size // sharding.shards(experiment.mesh)


def tree_bytes(tree: Any) -> int:
    """Bytes per device of an abstract, sharded tree."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return total


def whole(experiment: Experiment) -> dict[str, int]:
    """Bytes of parameters, average and optimizer together on all devices, each number once.

    What a checkpoint holds.
    """
    like = experiment.abstract()
    size = lambda tree: sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))
    return {
        "parameters": size(like.params),
        "average": size(like.ema),
        "optimizer": size(like.opt_state),
    }


def split(experiment: Experiment) -> dict[str, int]:
    """Bytes per device of parameters, average and optimizer."""
    like = experiment.abstract()
    return {
        "parameters": tree_bytes(like.params),
        "average": 0 if experiment.training.ema_on_host else tree_bytes(like.ema),
        "optimizer": tree_bytes(like.opt_state),
    }
