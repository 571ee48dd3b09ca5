"""The pure sampler of a run: its network, what it refuses, and the program that draws a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling, check_sampler, is_narrow
from ldd_jax.core.casts import cast_once
from ldd_jax.core.checks import require
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.logical import constrain
from ldd_jax.core.positions import SIGNAL
from ldd_jax.samplers import Clamp, SampleState, read, sample_blocks
from ldd_jax.samplers.guidance import guide, guide_prompt
from ldd_jax.samplers.net import Net
from ldd_jax.training import sharding

PRIOR, STEPS, READ = 0, 1, 2


def program(
    experiment: Experiment,
    sampling: Sampling,
    length: int,
    record: Callable[[SampleState], Any] | None = None,
) -> Callable[..., tuple[SampleState, Any]]:
    """The pure sampler: (params, seed, index, label, tokens, fixed, steps, unit, given) -> both.

    label [B], tokens and fixed [B, L]; given: parts of the state that are held, or what the network
    is told, by name, [B, L, ...]. Both: the state, `memory` holding what is beside its tokens, and
    the trace that `record` makes (see `samplers.sample`) or None. A network
    with classes is guided towards the label with `sampling.guidance` (the label after the last
    means none), one without towards the clamped tokens. Tokens, fixed and unit are [B, L]; unit,
    the patch of each position, is for a network whose patches come from the data.

    Args:
      experiment: the run's, with its mesh.
      sampling: the rule, its grid, latent, guidance and tail.
      length: L; blocks that make more leave out what is beyond.
      record: what is kept of every step, whose z are tokens; None = nothing.
    """
    mesh = experiment.mesh
    once = cast_once if is_narrow(experiment.model) else lambda fn: fn
    whole: Any = experiment.process
    made = sampling.blocks.padded(length, experiment.block)
    beyond = lambda a: jnp.pad(a, ((0, 0), (0, made - length)))
    looked = record and (lambda state: record(state._replace(z=whole.shown(state.z))))

    def sampler(params, *args):
        return once(lambda params: drawn(params, *args))(params)

    def drawn(params, seed, index, label, fixed_tokens, fixed, num_steps, unit=None, given=None):
        key, given = jax.random.key(seed), given or {}
        held = {name: part for name, part in given.items() if name in whole.parts}
        process = whole.holding(tuple(held)) if held else whole
        told = None if held else given.get(SIGNAL)
        net = network(experiment, sampling, params, label, unit, told)
        net = dataclasses.replace(net, process=process) if held else net
        z, clock = process.prior(example_keys(jax.random.fold_in(key, PRIOR), index), made)
        z = z | held if held else z
        state, trace = sample_blocks(
            net,
            sampling.step,
            Production.of(jax.random.fold_in(key, STEPS), index),
            (jax.tree.map(_laid, z), clock),
            num_steps,
            blocks=sampling.blocks,
            window=experiment.config.data.length,
            grid=sampling.grid,
            clamp=Clamp(process.encode(beyond(fixed_tokens)), process.places(beyond(fixed))),
            latent=sampling.latent,
            tail=sampling.tail,
            stop=sampling.stop,
            compact=sampling.compact,
            record=looked,
            eos=experiment.tokenizer.eos if sampling.blocks.stops else None,
        )
        if made > length:  # what is beyond the row is left out
            state = state._replace(z=jax.tree.map(lambda a: a[:, :length], state.z))
        # The latent stays inside.
        beside = process.beside(state.z)
        state = read(net, state, Production.of(jax.random.fold_in(key, READ), index), length)
        return state._replace(h=None, memory=beside), trace

    return sharding.on(mesh, sampler)


def _laid(a: Any) -> Any:
    """A branch of the state on the mesh."""
    return constrain(a, "batch", "length", *(None,) * (a.ndim - 2))


def network(
    experiment: Experiment,
    sampling: Sampling,
    params: Any,
    label: Any,
    unit: Any = None,
    signal: Any = None,
) -> Net:
    """What a sampler asks for predictions: read-out, tiles, guidance towards a label or a prompt.

    Args:
      experiment: its model, process and devices.
      sampling: its settings.
      params: of the model.
      label: classes [B], of a network that takes them.
      unit: patch of each position [B, L], of a network that is told.
      signal: points [B, L, C] that the network is told, of one that denoises none.
    """
    model, pieces = experiment.model, sharding.shards(experiment.mesh)
    net = Net(model.bind(params), experiment.process, sampling.readout, sampling.tile, pieces)
    net = dataclasses.replace(net, unit=unit, signal=signal)
    if model.num_classes:
        return guide(net, label, null=model.num_classes, gamma=sampling.guidance)
    return guide_prompt(net, gamma=sampling.guidance)


def check_settings(experiment: Experiment, sampling: Sampling) -> None:
    """Refuse a sampler that cannot run with this network.

    Raises:
      UserError: saying why.
    """
    check_sampler(sampling, experiment.process, experiment.model)
    require(
        sampling.blocks.whole or not (experiment.channels or experiment.process.reader),
        "a row with a signal beside its tokens, or made of vectors, is made whole; give "
        "--blocks=whole",
    )
    require(
        not sampling.compact or sharding.shards(experiment.mesh) == 1,
        "compact moves rows of a batch together, which are laid over devices here; leave it 0",
    )
    require(
        sampling.guidance == 1 or not experiment.block,
        "guidance asks the network twice, and finished blocks stand in one cache; use guidance 1",
    )
    require(
        sampling.guidance == 1 or experiment.objective.condition_dropout > 0,
        f"guidance is {sampling.guidance}, but this model never saw its condition missing; "
        "train with objective.condition_dropout, or use guidance 1",
    )
