"""Operations of a training or sampling step, from its jaxpr and from the closed formula."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.vocabulary_tiles import AUTO, CHOSEN, SCORED, automatic
from ldd_jax.denoisers.carry import Hidden
from ldd_jax.denoisers.stack import LOOPS
from ldd_jax.inference.programs import program
from ldd_jax.objectives import NoContext
from ldd_jax.objectives.context import GATE
from ldd_jax.objectives.strata import stratified
from ldd_jax.planning.flops import Count, count
from ldd_jax.samplers.approximate import WINDOWS
from ldd_jax.samplers.cached import BLOCKS
from ldd_jax.samplers.loop import STEPS, TAIL
from ldd_jax.samplers.next_token import PROMPT
from ldd_jax.samplers.windows import RENEWAL
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
    """Trips of the row loop, N * share / tile + 1/2, and probability of the passes before."""
    objective = experiment.objective
    micro = batch // experiment.training.accumulate * objective.context.states
    rows = micro * experiment.config.data.length / sharding.shards(experiment.mesh)
    tile, share = tile_of(objective.tile, rows, experiment), scored_share(experiment)
    trips = -(-rows // tile) if share == 1 else rows * share / tile + 0.5
    found = {SCORED: trips}
    if objective.context.carries:
        found[GATE] = objective.context.p
    if experiment.config.objective.get("draw_loops", False):
        found[LOOPS] = (mean_loops(experiment) - 1) / (experiment.config.model.loops - 1)
    return found


def mean_loops(experiment: Experiment) -> float:
    """Expected times that an update goes through the blocks."""
    model = experiment.config.model
    most = model.get("loops", 1)
    drawn = experiment.config.objective.get("draw_loops", False)
    return (model.least_loops + most) / 2 if drawn else most


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

    Of a network by blocks it is a step in each block of a row.

    Args:
      experiment: with its sampler and mesh.
      batch: samples, over all devices.
      num_steps: of the time grid, which decides how many rows move.
    """
    length, sampling = experiment.config.data.length, experiment.sampling
    blocks = sampling.blocks
    at_once = experiment.block or length
    if not blocks.exact:
        at_once = blocks.first(length, length, 0)
    rows = batch * at_once / sharding.shards(experiment.mesh)
    tile = tile_of(sampling.tile, rows, experiment)
    trips = max(1.0, rows * moving_share(experiment, num_steps) / tile + 0.5)
    trips = min(trips, -(-rows // tile))
    args = sampler_arrays(experiment, batch, length)
    run = program(experiment, sampling, length)
    # What stands within the loop over steps comes before it, as that does before what is around it.
    inside: dict[str, Any] = {CHOSEN: trips, RENEWAL: blocks.renewals(num_steps), TAIL: 1.0}
    around = {PROMPT: 0.0, BLOCKS: length / at_once, WINDOWS: blocks.shares(length)}
    with_steps = lambda n: count(run, *args, expected=inside | {STEPS: n} | around)
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
    if experiment.config.objective.get("draw_loops", False):
        objective = dataclasses.replace(objective, draw_loops=False)
    fields = {f.name for f in dataclasses.fields(experiment.model)}  # type: ignore[arg-type]
    own = dict(latent=False, latent_width=0, carry=Hidden(), carry_at="all", loops=1, least_loops=1)
    off = {n: value for n, value in own.items() if n in fields}
    model = dataclasses.replace(experiment.model, **off)  # type: ignore[type-var]
    return dataclasses.replace(experiment, objective=objective, model=model)


def closed_form(experiment: Experiment, tokens: float) -> dict[str, float]:
    """Forward operations of `tokens` positions, as the network counts them.

    Training by blocks runs the trunk on the clean row beside the noise.
    """
    each = experiment.model.operations(experiment.config.data.length)
    each["trunk"] *= 2 if experiment.objective.by_block else 1
    return {part: tokens * number for part, number in each.items()}


def model_operations(experiment: Experiment, tokens: float) -> float:
    """Operations that the method cannot do without, for `tokens` trained on.

    3 (passes trunk + states share head) + forward trunk: passes that are trained are run forward
    once and backward twice, through the head only where the bound is scored; those before them are
    run forward by those who pay them; so is what a call makes of its prediction to be carried. No
    recomputation. What MFU counts.
    """
    context = experiment.objective.context
    forward = closed_form(experiment, tokens)
    head = scored_share(experiment) * forward["head"] * context.states
    looped = mean_loops(experiment) / experiment.config.model.get("loops", 1)
    passes = (3 * context.trained + context.forward) * looped
    return passes * forward["trunk"] + 3 * head + context.carried_calls * forward.get("carry", 0)
