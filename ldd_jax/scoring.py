"""The likelihood of given texts under a trained model, compiled once for every estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from ldd_jax.core.checks import require
from ldd_jax.evaluation import estimators, likelihood
from ldd_jax.experiment import Experiment
from ldd_jax.training import sharding


def program(experiment: Experiment, passes: int, estimator: str = estimators.NELBO) -> Callable:
    """(params, arrays, key) -> nats and tokens of every row; replicated over the mesh.

    Raises:
      UserError: for an estimator that this model has not.
    """
    objective = estimators.objective(experiment.objective.as_bound(passes), estimator)
    score, mesh = likelihood.score_fn(experiment.model, objective), experiment.mesh
    run = jax.jit(sharding.on(mesh, score), out_shardings=sharding.replicated(mesh))
    return lambda params, arrays, key: run(params, arrays, sharding.everywhere(mesh, key))


def conditional(
    experiment: Experiment,
    params: Any,
    pairs: Sequence[estimators.Pair],
    *,
    estimator: str = "",
    passes: int = 0,
    draws: int = 32,
    seed: int = 0,
    batch: int = 64,
    length: int = 0,
    compiled: dict | None = None,
) -> estimators.RowEstimates:
    """-log p(response | prompt) of every (prompt ids, response ids), with Monte-Carlo errors.

    Exact with one draw for an autoregressive model; otherwise the bound by `estimator` ("" = the
    least noisy that the process allows: time_free, or nelbo without masks).

    Args:
      experiment: of a workdir, see `loop.load`.
      params: its parameters.
      pairs: what is scored; an empty prompt gives the unconditional likelihood.
      estimator: see `evaluation.estimators`.
      passes: network passes of a bound; 0 = the config's.
      draws: network calls a pair (times `passes`).
      seed: of the draws; the same seed couples two lists of pairs of equal lengths.
      batch: rows of a call, rounded up to the data shards.
      length: rows are padded to it; 0 = the longest pair.
      compiled: keeps the program for the next call.

    Raises:
      UserError: for pairs that do not fit, or an estimator that the model has not.
    """
    require(len(pairs) > 0, "there is nothing to score")
    exact = experiment.objective.exact
    masks = not exact and experiment.process.absorbing
    estimator = estimator or ("time_free" if masks else estimators.NELBO)
    passes = passes or experiment.evaluation.passes
    compiled = {} if compiled is None else compiled
    key = (passes, estimator)
    if key not in compiled:
        compiled[key] = program(experiment, passes, estimator)
    pieces = sharding.shards(experiment.mesh)
    return estimators.conditional(
        compiled[key],
        params,
        pairs,
        key=jax.random.fold_in(experiment.key(2), seed),
        draws=1 if exact else draws,
        batch=-(-batch // pieces) * pieces,
        length=length or max(len(p) + len(r) for p, r in pairs),
        boundary=float(experiment.process.boundary()),
        put=lambda arrays: sharding.put(experiment.mesh, arrays),
    )
