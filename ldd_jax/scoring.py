"""The program that an estimator of the likelihood runs, on all devices."""

from __future__ import annotations

from collections.abc import Callable

import jax

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
