"""The program that an estimator of the likelihood runs, on all devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ldd_jax.evaluation import estimators, likelihood
from ldd_jax.experiment import Experiment
from ldd_jax.training import sharding


def objective(experiment: Experiment, passes: int, estimator: str = estimators.NELBO) -> Any:
    """What `program` evaluates; it says itself whether that is a bound.

    Raises:
      UserError: for an estimator that this model has not.
    """
    return estimators.objective(experiment.objective.as_bound(passes), estimator)


def program(experiment: Experiment, passes: int, estimator: str = estimators.NELBO) -> Callable:
    """(params, arrays, key) -> nats and tokens of every row; replicated over the mesh.

    Raises:
      UserError: for an estimator that this model has not.
    """
    scored, mesh = objective(experiment, passes, estimator), experiment.mesh
    score = likelihood.score_fn(experiment.model, scored)
    run = jax.jit(sharding.on(mesh, score), out_shardings=sharding.replicated(mesh))
    return lambda params, arrays, key: run(params, arrays, sharding.everywhere(mesh, key))
