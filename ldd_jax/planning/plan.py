"""The `plan` command: what a config needs on a named slice, in one table or JSON."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from ldd_jax import experiment as experiments
from ldd_jax.core import registry
from ldd_jax.core.checks import require
from ldd_jax.experiment import Experiment
from ldd_jax.planning import aot, chips, cost
from ldd_jax.training import state as states

REMATS = ("none", "dots", "full")


def build(config: ConfigDict, vocabulary: int, devices: list | None) -> Experiment:
    """The experiment on these devices, for a vocabulary of this size; no data is read."""
    mesh = registry.build("mesh", config.mesh).make(devices)
    tokenizer: Any = SimpleNamespace(size=vocabulary)
    experiment = experiments.build(config, tokenizer, mesh)
    experiments.check_batch(experiment)
    return experiment


def with_fields(config: ConfigDict, **fields: Any) -> ConfigDict:
    """A copy with dotted fields (written with __) set."""
    config = copy.deepcopy(config)
    for path, value in fields.items():
        *nodes, leaf = path.split("__")
        node = config
        for name in nodes:
            node = node[name]
        node[leaf] = value
    return config


def flops(config: ConfigDict, vocabulary: int) -> dict[str, Any]:
    """Operations of an update, of the plain update of the same method, and their ratio."""
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
        "closed_form_forward": cost.closed_form(experiment, tokens),
        "tokens": tokens,
        "parameters": _parameters(experiment),
        "remat": config.model.remat,
    }


def _first_device() -> list:
    import jax

    return jax.devices()[:1]


def _parameters(experiment: Experiment) -> int:
    like = states.abstract(experiment.model, experiment.update.optimizer, experiment.mesh)
    return states.count(like.params)


def estimate(experiment: Experiment, batch: int, topology: str, found: aot.Compiled) -> dict:
    """A roofline estimate from published chip figures; nothing is run."""
    chip = chips.chip(topology)
    devices = experiment.mesh.size
    count = cost.step_count(experiment, batch)
    per_device = count.total / devices
    peak = chip.tflops * 1e12 / chip.cores
    compute = per_device / peak
    memory = 2 * (found.arguments + found.temporary) / (chip.memory_gb_s * 1e9 / chip.cores)
    step = max(compute / 0.5, memory)  # half of peak is what good trainers reach
    tokens = batch * experiment.config.data.length
    model = 3 * sum(cost.closed_form(experiment, tokens).values())
    return {
        "note": "estimate: max(compute at half of peak, memory traffic of twice the buffers)",
        "compute_seconds_at_peak": compute,
        "memory_seconds": memory,
        "step_seconds": step,
        "tokens_per_second_per_chip": tokens / step / devices * chip.cores,
        "mfu": model / devices / step / peak,
    }


def on_slice(
    config: ConfigDict, vocabulary: int, topology: str, per_chip: int
) -> tuple[Experiment, int]:
    """The experiment on a slice, and its global batch."""
    devices = aot.devices(topology)
    batch = per_chip * len(devices) // chips.chip(topology).cores
    return build(with_fields(config, training__batch_size=batch), vocabulary, devices), batch


def train(config: ConfigDict, vocabulary: int, topology: str, per_chip: int) -> dict[str, Any]:
    """Compile the training step for `per_chip` sequences a chip and say what it needs."""
    chip = chips.chip(topology)
    experiment, batch = on_slice(config, vocabulary, topology, per_chip)
    found = aot.train_step(experiment, batch)
    parts = aot.split(experiment)
    capacity = chip.memory_gib / chip.cores
    return {
        "what": "train",
        "topology": topology,
        "mesh": dict(experiment.mesh.shape),
        "recipe": config.recipe,
        "parameters": _parameters(experiment),
        "sequences_per_chip": per_chip,
        "global_batch": batch,
        "remat": config.model.remat,
        "gib_per_device": {
            **{k: v / aot.GIB for k, v in parts.items()},
            "arguments": found.arguments / aot.GIB,
            "activations": found.temporary / aot.GIB,
            "peak": found.peak / aot.GIB,
            "capacity": capacity,
        },
        "fits": found.peak / aot.GIB < capacity,
        "collectives": aot.collectives(found.text) or "not printed by the compiler",
        "largest_float32_elements": aot.largest_float32(found.text),
        "compile_seconds": found.seconds,
        "estimate": estimate(experiment, batch, topology, found),
    }


def sample(config: ConfigDict, vocabulary: int, topology: str, per_chip: int) -> dict[str, Any]:
    """Compile the sampler for `per_chip` sequences a chip; one program for all steps."""
    chip = chips.chip(topology)
    experiment, batch = on_slice(config, vocabulary, topology, per_chip)
    found = aot.sampler(experiment, batch, config.data.length)
    return {
        "what": "sample",
        "topology": topology,
        "mesh": dict(experiment.mesh.shape),
        "recipe": config.recipe,
        "sequences_per_chip": per_chip,
        "gib_per_device": {
            "arguments": found.arguments / aot.GIB,
            "activations": found.temporary / aot.GIB,
            "peak": found.peak / aot.GIB,
            "capacity": chip.memory_gib / chip.cores,
        },
        "largest_float32_elements": aot.largest_float32(found.text),
        "compile_seconds": found.seconds,
    }


def search(config: ConfigDict, vocabulary: int, topology: str, start: int) -> dict[str, Any]:
    """The largest power-of-two multiple of `start` sequences a chip that fits, and its remat."""
    best: dict[str, Any] = {}
    tried = []
    for remat in REMATS:
        per_chip = start
        while True:
            chosen = with_fields(config, model__remat=remat)
            try:
                found = train(chosen, vocabulary, topology, per_chip)
            except Exception as error:
                require("RESOURCE_EXHAUSTED" in str(error), str(error).splitlines()[0])
                tried.append({"remat": remat, "sequences_per_chip": per_chip, "fits": False})
                break
            fits = found["fits"]
            tried.append({"remat": remat, "sequences_per_chip": per_chip, "fits": fits,
                          "peak": found["gib_per_device"]["peak"]})  # fmt: skip
            if not fits:
                break
            if per_chip > best.get("sequences_per_chip", 0):
                best = found
            per_chip *= 2
    return {"best": best, "tried": tried}


def table(record: dict[str, Any], prefix: str = "") -> str:
    """Plain lines of a nested record."""
    lines = []
    for key, value in record.items():
        if isinstance(value, dict):
            lines.append(table(value, f"{prefix}{key}."))
        elif isinstance(value, float):
            lines.append(f"{prefix + key:45s} {value:,.4g}")
        else:
            lines.append(f"{prefix + key:45s} {value}")
    return "\n".join(lines)
