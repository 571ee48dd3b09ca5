"""A trained model watched while it samples: curves by step, counts of a run, and single paths."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.checks import UserError, require
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.evaluation import mechanism
from ldd_jax.experiment import Experiment
from ldd_jax.samplers import sample
from ldd_jax.samplers.base import Net
from ldd_jax.training import sharding

PLAYED = 4  # rows whose paths are kept


def watch(
    experiment: Experiment,
    params: Any,
    *,
    steps: int,
    samples: int,
    seed: int = 0,
    reset_every: int = 0,
    every: int = 4,
) -> dict[str, Any]:
    """Draw samples with the run's own rule, unguided and in one block, and record the mechanism.

    Rows are those of one seed: two models of the same token space begin with the same noise.

    Args:
      experiment: of a workdir.
      params: its parameters.
      steps: of the grid.
      samples: rows, in one batch.
      seed: of prior and draws.
      reset_every: h = 0 before every k-th step; 1 = no latent, 0 = never.
      every: K of the temporal KL.

    Raises:
      UserError: for a rule without a grid, or a reset where there is no latent.
    """
    sampling, process = experiment.sampling, experiment.process
    length = experiment.config.data.length
    has_latent = experiment.model.latent
    require(steps >= 1 and samples >= 1, "steps and samples must be at least 1")
    require(has_latent or not reset_every, "this network takes no latent; there is none to reset")
    step = mechanism.Observed(inner=sampling.step, every=every)
    grid = sampling.grid
    latent = dataclasses.replace(sampling.latent, reset_every=reset_every)
    try:
        step.check(process, latent=has_latent, timed=experiment.model.time_conditioning)
    except ValueError as error:
        raise UserError(str(error)) from error
    pieces = sharding.shards(experiment.mesh)
    rows = -(-samples // pieces) * pieces

    def watched(params, seed):
        key, index = jax.random.key(seed), jnp.arange(rows, dtype=jnp.uint32)
        denoiser: Any = experiment.model.bind(params)
        looked = dataclasses.replace(step, parts=denoiser.parts) if has_latent else step
        net = Net(denoiser, process, sampling.readout, sampling.tile, pieces)
        prior = process.prior(example_keys(jax.random.fold_in(key, 0), index), length)
        draw = Production.of(jax.random.fold_in(key, 1), index)
        look = lambda state: state.memory[2]
        state, looks = sample(
            net,
            looked,
            draw,
            prior,
            steps,
            grid=grid,
            latent=latent,
            tail=sampling.tail,
            record=look,
        )
        return prior, looks, state.z, state.calls

    run = jax.jit(
        sharding.on(experiment.mesh, watched),
        out_shardings=sharding.replicated(experiment.mesh),
    )
    prior, looks, last, calls = jax.device_get(run(params, np.uint32(seed)))
    looks = jax.tree.map(lambda a: np.asarray(a)[:, :samples], looks)
    path = np.concatenate([prior[None, :samples], looks.tokens, last[None, :samples]])
    counts: dict[str, Any] = mechanism.path_counts(path)
    plain = sampling.step.registered == ("step", "ancestral")  # type: ignore[attr-defined]
    if process.absorbing and plain:
        counts["busy_expected"] = mechanism.busy_steps(process, grid, steps, length)
    return {
        "recipe": experiment.config.recipe,
        "steps": steps,
        "samples": samples,
        "seed": seed,
        "calls": int(calls[0]),
        "reset_every": reset_every,
        "every": every,
        "curves": mechanism.curves(looks),
        "counts": counts,
        "paths": [_played(experiment, path[:, i], looks, i) for i in range(min(samples, PLAYED))],
    }


def _played(experiment: Experiment, path: np.ndarray, looks: Any, row: int) -> dict[str, Any]:
    """One row by step: token texts, entropy and latent norm; the noise removal has no look."""
    decode = experiment.tokenizer.decode
    texts = {int(i): decode([int(i)]) for i in np.unique(path)}
    number = lambda a: [[None if np.isnan(v) else round(float(v), 3) for v in r] for r in a[:, row]]
    played: dict[str, Any] = {
        "tokens": [[texts[int(i)] for i in step] for step in path],
        "entropy": number(looks.entropy),
        "text": decode([int(i) for i in path[-1]]),
    }
    if experiment.model.latent:
        played["norm"] = number(looks.norm)
    return played
