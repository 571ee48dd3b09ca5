"""The `plan` command: what a config needs on a named slice, in one table or JSON."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import experiment as experiments
from ldd_jax.config import refusals
from ldd_jax.config.experiment import Experiment
from ldd_jax.core import registry
from ldd_jax.core.checks import require
from ldd_jax.planning import aot, chips, cost, fitting, hlo
from ldd_jax.training import sharding
from ldd_jax.training import state as states

AHEAD = 6  # batches of a host: four are read ahead, one is sent and one is kept
HALF = 0.5  # of the published peak, in estimates


def build(config: ConfigDict, vocabulary: int, devices: list | None) -> Experiment:
    """The experiment on these devices; no data is read.

    `config` and `vocabulary` are those of `on_slice`; `devices` None = those that are here.
    """
    mesh = registry.build("mesh", config.mesh).make(devices)
    tokenizer: Any = SimpleNamespace(size=vocabulary)
    experiment = experiments.build(config, tokenizer, mesh)
    refusals.check_batch(experiment)
    return experiment


def _no_target(config: ConfigDict) -> None:
    require(
        "target" not in config.data,
        "plan counts the operations of runs on data; those of a target roll out for as many calls "
        "as there are sites, which the counts know nothing of",
    )


def with_fields(config: ConfigDict, **fields: Any) -> ConfigDict:
    """A copy with dotted fields (written with __) set."""
    config = config.copy_and_resolve_references()
    for path, value in fields.items():
        *nodes, leaf = path.split("__")
        node = config
        for name in nodes:
            node = node[name]
        node[leaf] = value
    return config


def flops(config: ConfigDict, vocabulary: int) -> dict[str, Any]:
    """Operations of an update, of the plain update of the same method, and their ratio."""
    _no_target(config)
    experiment = build(with_fields(config, mesh__data=1), vocabulary, _first_device())
    batch = experiment.training.batch_size
    tokens = batch * config.data.length
    step = cost.step_count(experiment, batch)
    base = cost.step_count(cost.plain(experiment), batch)
    return {
        "step": step.total,
        "plain_step": base.total,
        "ratio_to_plain": step.total / base.total,
        "shares_of_plain": {k: v / base.total for k, v in step.by_scope.items()},
        "expectations": step.assumed,
        "measured": cost.measured(experiment, batch, 1),
        "measured_16_shards_of_64": cost.measured(experiment, 1024, 16),
        "closed_form_forward": cost.closed_form(experiment, tokens),
        "forward_per_token": sum(cost.closed_form(experiment, 1).values()),
        "tokens": tokens,
        "updates": experiment.training.num_steps,
        "passes_forward": experiment.objective.context.forward,
        "passes_with_gradient": experiment.objective.context.trained,
        "states_scored": experiment.objective.context.states,
        "loops": cost.mean_loops(experiment),
        "parameters": _parameters(experiment),
        "remat": config.model.get("remat", "none"),
    }


def parameters(config: ConfigDict, vocabulary: int) -> str:
    """Name, shape, type and size of every parameter, and their sum, as clu's table."""
    from clu import parameter_overview

    experiment = build(with_fields(config, mesh__data=1), vocabulary, _first_device())
    like = experiment.abstract()
    table = parameter_overview.get_parameter_overview(like.params, include_stats=False)
    return f"parameters of {config.recipe}\n{table}"


def _first_device() -> list:
    import jax

    return jax.devices()[:1]


def _parameters(experiment: Experiment) -> int:
    like = experiment.abstract()
    return states.count(like.params)


def estimate(
    experiment: Experiment, batch: int, topology: str, found: aot.Compiled, wire: float | None
) -> dict:
    """A roofline estimate from published chip figures; nothing is run.

    MFU is told where memory or links are what holds the step up: where operations do, it would be
    the share of the peak that is assumed, and says nothing.

    Args:
      experiment: on the slice.
      batch: global batch.
      topology: for the chip's figures.
      found: the compiled step.
      wire: bytes of collectives' results per device in a step; None = not known.
    """
    chip = chips.chip(topology)
    devices = experiment.mesh.size
    count = cost.step_count(experiment, batch)
    per_device = count.total / devices
    peak = chip.tflops * 1e12 / chip.cores
    compute = per_device / peak
    memory = 2 * (found.arguments + found.temporary) / (chip.memory_gb_s * 1e9 / chip.cores)
    network = None if wire is None else wire / (chip.link_gb_s * 1e9 / chip.cores)
    # Half of peak is what good trainers reach.
    parts = {"operations": compute / HALF, "memory": memory, "collectives": network}
    known = {name: seconds for name, seconds in parts.items() if seconds is not None}
    bound = max(known, key=lambda name: known[name])
    step = known[bound]
    tokens = batch * experiment.config.data.length
    mfu = cost.model_operations(experiment, tokens) / devices / step / peak
    return {
        "note": "estimate: max(operations at half of peak, twice the buffers through memory, "
        "collectives through the links)",
        "operations_per_step": count.total,
        "roofline_seconds": parts,
        "bound_by": bound,
        "step_seconds": step,
        "tokens_per_second_per_chip": tokens / step / devices * chip.cores,
        "mfu": None if bound == "operations" else mfu,
    }


def on_slice(
    config: ConfigDict, vocabulary: int, topology: str, per_chip: int
) -> tuple[Experiment, int]:
    """The experiment on a slice, and its global batch.

    Args:
      config: of the run; its batch size is replaced.
      vocabulary: ids of its tokenizer.
      topology: name of the slice, as `aot.devices` takes it.
      per_chip: sequences a chip.
    """
    devices = aot.devices(topology)
    batch = per_chip * len(devices) // chips.chip(topology).cores
    return build(with_fields(config, training__batch_size=batch), vocabulary, devices), batch


def hosts(experiment: Experiment, batch: int) -> dict[str, Any]:
    """What a host of the slice holds: a save under way, batches read ahead, perhaps the average.

    Args:
      experiment: on the slice.
      batch: global batch.
    """
    count = len({device.process_index for device in experiment.mesh.devices.flat})
    copied = sum(aot.whole(experiment).values()) / count  # each shard by one host
    rows = sum(
        math.prod(a.shape) * a.dtype.itemsize for a in cost.arrays(experiment, batch).values()
    )
    devices = experiment.mesh.size // count
    average = aot.tree_bytes(experiment.abstract().ema) * devices
    return {
        "hosts": count,
        "devices": devices,
        "gib_of_a_save": copied / aot.GIB,
        "gib_of_batches": AHEAD * rows / count / aot.GIB,
        "gib_of_average": average / aot.GIB if experiment.training.ema_on_host else 0.0,
    }


def _common(what: str, experiment: Experiment, topology: str, per_chip: int, batch: int) -> dict:
    config = experiment.config
    return {
        "what": what,
        "topology": topology,
        "chips": experiment.mesh.size // chips.chip(topology).cores,
        "mesh": dict(experiment.mesh.shape),
        "recipe": config.recipe,
        "parameters": _parameters(experiment),
        "sequences_per_chip": per_chip,
        "global_batch": batch,
        "length": config.data.length,
    }


def train(config: ConfigDict, vocabulary: int, topology: str, per_chip: int) -> dict[str, Any]:
    """Compile the training step and say what it needs.

    `config`, `vocabulary`, `topology` and `per_chip` are those of `on_slice`.
    """
    _no_target(config)
    chip = chips.chip(topology)
    experiment, batch = on_slice(config, vocabulary, topology, per_chip)
    found = fitting.fitting(lambda: aot.train_step(experiment, batch), per_chip)
    expected = cost.expectations(experiment, batch)
    collectives = hlo.Program.read(found.text, expected).collectives() if found.text else None
    wire = None if collectives is None else sum(e["bytes"] for e in collectives.values())
    capacity = chip.memory_gib / chip.cores
    return {
        **_common("train", experiment, topology, per_chip, batch),
        "remat": config.model.get("remat", "none"),
        "chunks": config.model.get("chunks", 1),
        "gib_per_device": {
            **{k: v / aot.GIB for k, v in aot.split(experiment).items()},
            "arguments": found.arguments / aot.GIB,
            "activations": found.temporary / aot.GIB,
            "peak": found.peak / aot.GIB,
            "capacity": capacity,
        },
        "fits": found.peak / aot.GIB < capacity,
        "per_host": hosts(experiment, batch),
        "checkpoint_gib": sum(aot.whole(experiment).values()) / aot.GIB,
        "collectives": collectives,
        "expectations": expected,
        "measured": cost.measured(experiment, batch, sharding.shards(experiment.mesh)),
        "largest_float32_elements": hlo.largest_float32(found.text) if found.text else None,
        "compile_seconds": found.seconds,
        "estimate": estimate(experiment, batch, topology, found, wire),
    }


def sample(
    config: ConfigDict, vocabulary: int, topology: str, per_chip: int, num_steps: int = 0
) -> dict[str, Any]:
    """Compile the sampler and say what it needs; one program for all steps.

    `config`, `vocabulary`, `topology` and `per_chip` are those of `on_slice`; `num_steps` is that
    of the time grid, 0 = the config's.
    """
    _no_target(config)
    chip = chips.chip(topology)
    num_steps = num_steps or config.sampling.num_steps
    experiment, batch = on_slice(config, vocabulary, topology, per_chip)
    found = fitting.fitting(lambda: aot.sampler(experiment, batch, config.data.length), per_chip)
    step = cost.sampler_step_count(experiment, batch, num_steps)
    whole = cost.sampler_step_count(cost.plain_sampler(experiment), batch, num_steps)
    return {
        **_common("sample", experiment, topology, per_chip, batch),
        "steps": num_steps,
        "gib_per_device": {
            "arguments": found.arguments / aot.GIB,
            "activations": found.temporary / aot.GIB,
            "cache": aot.cache(experiment, batch, config.data.length) / aot.GIB,
            "peak": found.peak / aot.GIB,
            "capacity": chip.memory_gib / chip.cores,
        },
        "fits": found.peak / aot.GIB < chip.memory_gib / chip.cores,
        "operations_per_step": step.total,
        "ratio_to_plain": step.total / whole.total,
        "expectations": step.assumed,
        "collectives_of_a_step": hlo.Program.read(found.text).collectives() if found.text else None,
        "largest_float32_elements": hlo.largest_float32(found.text) if found.text else None,
        "compile_seconds": found.seconds,
    }


def table(record: dict[str, Any], prefix: str = "") -> str:
    """Plain lines of a nested record."""
    lines = []
    for key, value in record.items():
        if isinstance(value, dict):
            lines.append(table(value, f"{prefix}{key}."))
        elif isinstance(value, float):
            lines.append(f"{prefix + key:45s} {value:,.4g}")
        elif value is None:
            lines.append(f"{prefix + key:45s} not known")
        else:
            lines.append(f"{prefix + key:45s} {value}")
    return "\n".join(lines)
