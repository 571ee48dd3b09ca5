"""Operations of a training or sampling step, from its jaxpr and from the closed formula."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.rows import SCORED
from ldd_jax.experiment import Experiment
from ldd_jax.objectives import NoContext
from ldd_jax.objectives.context import GATE
from ldd_jax.planning.flops import Count, count
from ldd_jax.training import sharding
from ldd_jax.training import state as states


def arrays(experiment: Experiment, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global batch, laid over the mesh."""
    place = sharding.batch(experiment.mesh)
    length = experiment.config.data.length
    like = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
    return {
        "z0": like((batch, length), jnp.int32),
        "keep": like((batch, length), jnp.bool_),
        "weight": like((batch, length), jnp.float32),
        "index": like((batch,), jnp.int32),
    }


def scored_share(experiment: Experiment) -> float:
    """E_t of the share of rows that the bound scores: the mean noise level, or 1."""
    t = (jnp.arange(10_000) + 0.5) / 10_000
    z = jnp.full((1,), experiment.tokens.mask if experiment.tokens.mask is not None else 0)
    if experiment.process.schedule is None:
        return 1.0  # no time: every row is scored
    if experiment.tokens.mask is None or not bool(experiment.process.scored(z)[0]):
        return 1.0
    return float(jnp.mean(experiment.process.schedule.noise(t)))


def expectations(experiment: Experiment, batch: int) -> dict[str, float]:
    """Trips of the row loop, N * share / tile + 1/2, and probability of pass 1."""
    objective = experiment.objective
    micro = batch // experiment.training.accumulate
    rows = micro * experiment.config.data.length / sharding.shards(experiment.mesh)
    tile, share = max(objective.tile, 1), scored_share(experiment)
    trips = -(-rows // tile) if share == 1 else rows * share / tile + 0.5
    found = {SCORED: trips}
    if not isinstance(objective.context, NoContext):
        found[GATE] = objective.context.p
    return found


def step_count(experiment: Experiment, batch: int) -> Count:
    """Operations of one update on a global batch."""
    update = experiment.update
    like = states.abstract(experiment.model, update.optimizer, experiment.mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return count(
        update, like, arrays(experiment, batch), key, expected=expectations(experiment, batch)
    )


def plain(experiment: Experiment) -> Experiment:
    """The same method without loopholing, tiles and row selection."""
    objective = dataclasses.replace(experiment.objective, context=NoContext(), tile=0)
    model = dataclasses.replace(experiment.model, latent=False)  # type: ignore[type-var]
    return dataclasses.replace(experiment, objective=objective, model=model)


def closed_form(experiment: Experiment, tokens: float) -> dict[str, float]:
    """Forward operations of `tokens` positions: trunk 2 (12 D^2 + 2 L D) a layer, head 2 D V.

    Matrix products of the layers (qkv 3, out 1, MLP 2 x ratio, in units of D^2), scores and values
    2 L D each; the adaLN products are per example and left out.
    """
    m: Any = experiment.model
    d, length = m.width, experiment.config.data.length
    layer = 2 * d * d * (4 + 2 * m.mlp_ratio) + 4 * length * d
    return {
        "trunk": tokens * m.depth * layer,
        "head": tokens * 2 * d * experiment.tokens.size,
    }
