"""Operations of a training or sampling step, from its jaxpr and from the closed formula."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.vocabulary_tiles import AUTO, CHOSEN, SCORED, automatic
from ldd_jax.inference.generate import program
from ldd_jax.objectives import NoContext
from ldd_jax.objectives.context import GATE
from ldd_jax.objectives.times import stratified
from ldd_jax.planning.flops import Count, count
from ldd_jax.samplers.loop import STEPS
from ldd_jax.training import sharding


def arrays(experiment: Experiment, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch, laid over the mesh."""
    place = sharding.batch(experiment.mesh)
    length = experiment.config.data.length
    like = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
    channels = experiment.channels
    signal = {"signal": like((batch, length, channels), jnp.float32)} if channels else {}
    return signal | {
        "z0": like((batch, length), jnp.int32),
        "keep": like((batch, length), jnp.bool_),
        "weight": like((batch, length), jnp.float32),
        "index": like((batch,), jnp.int32),
    }


def sampler_arrays(experiment: Experiment, batch: int, length: int) -> tuple:
    """Shapes of the sampler's arguments: parameters, seed, index, label, tokens, fixed, steps,
    unit, given.

    Args:
      experiment: with the mesh that they are laid over.
      batch: samples, over all devices.
      length: tokens of a sample.
    """
    mesh = experiment.mesh
    one, rows = sharding.replicated(mesh), sharding.batch(mesh)
    like = experiment.abstract()
    told = bool(experiment.channels) and not experiment.process.parts
    rows_of = (batch, length, experiment.channels)
    given = {"signal": jax.ShapeDtypeStruct(rows_of, jnp.float32, sharding=rows)} if told else {}
    shape = lambda s, dtype, place: jax.ShapeDtypeStruct(s, dtype, sharding=place)
    return (
        like.params,
        shape((), jnp.uint32, one),
        shape((batch,), jnp.uint32, rows),
        shape((batch,), jnp.int32, rows),
        shape((batch, length), jnp.int32, rows),
        shape((batch, length), jnp.bool_, rows),
        shape((), jnp.int32, one),
        None,
        given,
    )


def scored_share(experiment: Experiment) -> float:
    """E_t of the share of rows that the bound scores: the mean noise level, or 1."""
    t = (jnp.arange(10_000) + 0.5) / 10_000
    z = jnp.full((1,), experiment.tokens.mask if experiment.tokens.mask is not None else 0)
    if experiment.process.schedule is None:
        return 1.0  # no time: every row is scored
    if experiment.process.parts or experiment.process.points:
        return 1.0  # points are scored everywhere
    if experiment.tokens.mask is None or not bool(experiment.process.scored(z)[0]):
        return 1.0
    return float(jnp.mean(experiment.process.schedule.noise(t)))


def tile_of(tile: int, rows: float, experiment: Experiment) -> int:
    """Rows of a tile, chosen where it is left open; 1 where there are none.

    Args:
      tile: of the config; `AUTO` = left open.
      rows: that are walked, on one shard.
      experiment: its states decide, where it is left open.
    """
    chosen = automatic(int(rows), experiment.tokens.size) if tile == AUTO else tile
    return max(chosen, 1)


def expectations(experiment: Experiment, batch: int) -> dict[str, float]:
    """Trips of the row loop, N * share / tile + 1/2, and probability of pass 1."""
    objective = experiment.objective
    micro = batch // experiment.training.accumulate
    rows = micro * experiment.config.data.length / sharding.shards(experiment.mesh)
    tile, share = tile_of(objective.tile, rows, experiment), scored_share(experiment)
    trips = -(-rows // tile) if share == 1 else rows * share / tile + 0.5
    found = {SCORED: trips}
    if not isinstance(objective.context, NoContext):
        found[GATE] = objective.context.p
    return found


def measured(experiment: Experiment, batch: int, shards: int, draws: int = 200) -> dict[str, float]:
    """What `expectations` expects, as met in drawn batches.

    Mean trips of the row loop (those of the fullest shard, which all make) and the mean share of
    its rows that the fullest shard scores.

    Args:
      experiment: its objective draws the times.
      batch: sequences, over all shards.
      shards: data shards.
      draws: batches.
    """
    length, objective = experiment.config.data.length, experiment.objective
    share = scored_share(experiment)
    rows = batch // experiment.training.accumulate * length // shards
    tile = tile_of(objective.tile, rows, experiment)
    if share == 1:
        return {"trips": float(-(-rows // tile)), "fullest_shard": 1.0}
    trips, fullest = [], []
    rng = np.random.default_rng(0)
    for i in range(draws):
        u = stratified(jax.random.key(i), jnp.arange(batch), batch)
        t, _ = objective.times(u, experiment.process.schedule)
        noise = np.asarray(experiment.process.schedule.noise(t), np.float64)
        count = rng.binomial(length, np.clip(noise, 0, 1))
        by_shard = count.reshape(shards, experiment.training.accumulate, -1).sum(-1)
        trips.append(-(-by_shard.max(0) // tile))
        fullest.append(by_shard.max(0) / rows)
    return {"trips": float(np.mean(trips)), "fullest_shard": float(np.mean(fullest))}


def step_count(experiment: Experiment, batch: int) -> Count:
    """Operations of one update on a global batch."""
    update = experiment.update
    like = experiment.abstract(batch)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return count(
        update, like, arrays(experiment, batch), key, expected=expectations(experiment, batch)
    )


def moving_share(experiment: Experiment, num_steps: int) -> float:
    """Mean share of rows that may move in one of `num_steps` steps.

    The mean over the grid of P(masked at t) P(move | masked), or of P(move) without a mask.
    """
    i = jnp.arange(num_steps, dtype=jnp.float32)
    t, s = (experiment.sampling.grid(j, num_steps) for j in (i, i + 1))
    mask = experiment.tokens.mask
    here = 1.0 if mask is None else experiment.process.schedule.noise(t)
    z = jnp.full((num_steps,), 0 if mask is None else mask)
    return float(jnp.mean(here * experiment.process.move_probability(z, t, s)))


def sampler_step_count(experiment: Experiment, batch: int, num_steps: int) -> Count:
    """Operations of one sampling step: a run of one step less one of none.

    Args:
      experiment: with its sampler and mesh.
      batch: samples, over all devices.
      num_steps: of the time grid, which decides how many rows move.
    """
    length, sampling = experiment.config.data.length, experiment.sampling
    rows = batch * length / sharding.shards(experiment.mesh)
    tile = tile_of(sampling.tile, rows, experiment)
    trips = max(1.0, rows * moving_share(experiment, num_steps) / tile + 0.5)
    trips = min(trips, -(-rows // tile))
    args = sampler_arrays(experiment, batch, length)
    run = program(experiment, sampling, length)
    with_steps = lambda n: count(run, *args, expected={CHOSEN: trips, STEPS: n})
    one, none = with_steps(1.0), with_steps(0.0)
    return Count(one.total - none.total, {}, one.assumed | {"rows that may move": trips * tile})


def plain_sampler(experiment: Experiment) -> Experiment:
    """The same sampler with the head and the draw at every position."""
    return dataclasses.replace(
        experiment, sampling=dataclasses.replace(experiment.sampling, tile=0)
    )


def plain(experiment: Experiment) -> Experiment:
    """The same method without loopholing, tiles and row selection."""
    objective = dataclasses.replace(experiment.objective, context=NoContext(), tile=0)
    fields = {f.name for f in dataclasses.fields(experiment.model)}  # type: ignore[arg-type]
    off = {n: value for n, value in (("latent", False), ("latent_width", 0)) if n in fields}
    model = dataclasses.replace(experiment.model, **off)  # type: ignore[type-var]
    return dataclasses.replace(experiment, objective=objective, model=model)


def closed_form(experiment: Experiment, tokens: float) -> dict[str, float]:
    """Forward operations of `tokens` positions, as the network counts them."""
    each = experiment.model.operations(experiment.config.data.length)
    return {part: tokens * number for part, number in each.items()}


def model_operations(experiment: Experiment, tokens: float) -> float:
    """Operations that the method cannot do without, for `tokens` trained on.

    3 (trunk + share head) + p passes trunk: forward once and backward twice, through the head only
    where the bound is scored, and pass 1 forward for those who pay it; no recomputation. What MFU
    counts.
    """
    forward = closed_form(experiment, tokens)
    head = scored_share(experiment) * forward["head"]
    return 3 * (forward["trunk"] + head) + first_pass(experiment) * forward["trunk"]


def first_pass(experiment: Experiment) -> float:
    """Expected trunk passes a training step makes before the scored one."""
    context = experiment.objective.context
    return 0.0 if isinstance(context, NoContext) else context.p * context.passes
