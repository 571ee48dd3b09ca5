"""A trained model watched while it samples: curves by step, counts of a run, and single paths."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.evaluation import mechanism
from ldd_jax.samplers import sample
from ldd_jax.samplers.loop import fetched
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.stops import Stop
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
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Draw samples with the run's own rule, unguided and in one block, and record the mechanism.

    Rows are those of one seed: two models of the same token space begin with the same noise. A rule
    without a time grid has paths, call by call, and no mechanism: `no_grid` is then True, and
    curves and counts are empty. So have states that are points; their paths are the tokens that
    they decode to.

    A row that stops early keeps its tokens from then on, and nothing is measured of it any more:
    the steps that it took are `ended` of its path, and `ended` of the counts.

    Args:
      experiment: of a workdir.
      params: its parameters.
      steps: of the grid.
      samples: rows, in one batch.
      seed: of prior and draws.
      reset_every: h = 0 before every k-th step; 1 = no latent, 0 = never.
      every: K of the temporal KL.
      stop: when a row ends; None = as the run's sampler has it.

    Raises:
      UserError: for a rule that cannot run here, or a reset where there is no latent.
    """
    experiment.check_alone("watching a path (play, report, mechanism)")
    experiment.check_whole("watching a path (play, report, mechanism)")
    sampling, process = experiment.sampling, experiment.process
    length = experiment.config.data.length
    has_latent = experiment.model.latent
    require(steps >= 1 and samples >= 1, "steps and samples must be at least 1")
    require(has_latent or not reset_every, "this network takes no latent; there is none to reset")
    on_grid = sampling.step.clock == "grid"
    looked = on_grid and not process.points
    step = mechanism.Observed(inner=sampling.step, every=every) if looked else sampling.step
    # A rule of its own clock finishes at least one position with every call; left to right, one
    # application makes the row.
    in_order = process.schedule is None
    steps = steps if step.counts_steps else 1 if in_order else length
    grid = sampling.grid
    latent = dataclasses.replace(sampling.latent, reset_every=reset_every)
    stop = sampling.stop if stop is None else stop
    try:
        step.check(process, latent=has_latent, timed=experiment.model.time_conditioning)
        stop.check(sampling.step, sampling.tail)
    except ValueError as error:
        raise UserError(str(error)) from error
    pieces = sharding.shards(experiment.mesh)
    rows = -(-samples // pieces) * pieces

    def watched(params, seed):
        key, index = jax.random.key(seed), jnp.arange(rows, dtype=jnp.uint32)
        denoiser: Any = experiment.model.bind(params)
        observed = step
        if has_latent and looked:
            observed = dataclasses.replace(step, parts=denoiser.parts)
        net = Net(denoiser, process, sampling.readout, sampling.tile, pieces)
        prior = process.prior(example_keys(jax.random.fold_in(key, 0), index), length)
        draw = Production.of(jax.random.fold_in(key, 1), index)
        shown = lambda state: state.memory[2] if looked else process.shown(state.z)
        state, metrics = sample(
            net,
            observed,
            draw,
            prior,
            steps,
            grid=grid,
            latent=latent,
            tail=sampling.tail,
            stop=stop,
            record=lambda state: (shown(state), state.calls),
        )
        z = process.decode(state.z)
        return process.shown(prior[0]), metrics, state._replace(z=z, h=None, memory=())

    run = jax.jit(
        sharding.on(experiment.mesh, watched),
        out_shardings=sharding.replicated(experiment.mesh),
    )
    prior, metrics, state = run(params, np.uint32(seed))
    prior, (metrics, paid) = jax.device_get((prior, metrics))
    last, calls = fetched(state)
    metrics, paid = jax.tree.map(lambda a: np.asarray(a)[:, :samples], (metrics, paid))
    taken = np.diff(paid, axis=0, prepend=0) > 0
    if stop.watches and looked:
        metrics = mechanism.while_going(metrics, taken)
    tokens = metrics.tokens if looked else metrics
    path = np.concatenate([prior[None, :samples], tokens, last[None, :samples]])
    about = {
        "recipe": experiment.config.recipe,
        "samples": samples,
        "seed": seed,
        "calls": int(calls[:samples].max()),
        "reset_every": reset_every,
        "every": every,
    }
    if in_order:
        place = np.arange(length)
        path = np.stack([np.where(place < i, path[-1], path[0]) for i in range(length + 1)])
    if not looked:
        moved = np.flatnonzero((path[1:] != path[:-1]).any((1, 2)))
        path = path[: moved[-1] + 2 if len(moved) else 1]  # nothing moves once all rows are done
        played = [_played(experiment, path[:, i]) for i in range(min(samples, PLAYED))]
        if stop.watches:
            ended(played, taken)
        empty: dict[str, Any] = {
            "steps": len(path) - 1,
            "no_grid": True,
            "curves": {},
            "counts": {},
        }
        return about | empty | {"paths": played}
    counts: dict[str, Any] = mechanism.path_counts(path)
    plain = sampling.step.registered == ("step", "ancestral")  # type: ignore[attr-defined]
    if process.absorbing and plain and not stop.watches:
        counts["busy_expected"] = mechanism.busy_steps(process, grid, steps, length)
    played = [_played(experiment, path[:, i], metrics, i) for i in range(min(samples, PLAYED))]
    if stop.watches:
        counts |= ended(played, taken)
    return about | {
        "steps": steps,
        "no_grid": False,
        "curves": mechanism.curves(metrics),
        "counts": counts,
        "paths": played,
    }


def ended(played: list[dict[str, Any]], taken: np.ndarray) -> dict[str, float | None]:
    """Mean number of steps that rows took, and its error; those of a path are noted in it.

    Args:
      played: paths, of the first rows.
      taken: which steps they took, [T, B].
    """
    count = taken.sum(0)
    for path, own in zip(played, count):
        path["ended"] = int(own)
    several = len(count) > 1
    error = float(count.std(ddof=1) / np.sqrt(len(count))) if several else None
    return {"ended": float(count.mean()), "ended_se": error}


def _played(
    experiment: Experiment, path: np.ndarray, metrics: Any = None, row: int = 0
) -> dict[str, Any]:
    """One row by step: token texts, and, where there are metrics of steps, entropy and latent norm.

    The noise removal has none.
    """
    decode = experiment.text
    texts = {int(i): decode([int(i)]) for i in np.unique(path)}
    number = lambda a: [[None if np.isnan(v) else round(float(v), 3) for v in r] for r in a[:, row]]
    played: dict[str, Any] = {
        "tokens": [[texts[int(i)] for i in step] for step in path],
        "entropy": [] if metrics is None else number(metrics.entropy),
        "text": decode([int(i) for i in path[-1]]),
    }
    if experiment.model.latent and metrics is not None:
        played["norm"] = number(metrics.norm)
    return played
