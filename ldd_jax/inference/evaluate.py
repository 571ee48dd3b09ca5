"""An estimate of the likelihood of a split, and the program that it runs on all devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import require
from ldd_jax.data import Corpus, Spread, batches
from ldd_jax.evaluation import estimators, likelihood
from ldd_jax.training import sharding


def objective(experiment: Experiment, passes: int, estimator: str = estimators.NELBO) -> Any:
    """What `program` evaluates; it says itself whether that is a bound.

    Args:
      experiment: the run's.
      passes: network passes of a draw, the last of which is scored.
      estimator: a name of `evaluation.estimators`.

    Raises:
      UserError: for an estimator that this model has not.
    """
    return estimators.objective(experiment.objective.as_bound(passes), estimator)


def program(experiment: Experiment, passes: int, estimator: str = estimators.NELBO) -> Callable:
    """(params, arrays, key) -> nats and tokens of every row; replicated over the mesh.

    Args:
      experiment: the run's, with its mesh.
      passes: network passes of a draw.
      estimator: a name of `evaluation.estimators`.

    Raises:
      UserError: for an estimator that this model has not.
    """
    scored, mesh = objective(experiment, passes, estimator), experiment.mesh
    score = likelihood.score_fn(experiment.model, scored)
    run = jax.jit(sharding.on(mesh, score), out_shardings=sharding.replicated(mesh))
    return lambda params, arrays, key: run(params, arrays, sharding.everywhere(mesh, key))


def check_prompt(experiment: Experiment, prompt: int) -> None:
    """Refuse given tokens where a model has no law given them.

    Raises:
      UserError: saying why.
    """
    require(
        not prompt or experiment.process.reader is None,
        "this model has no law of its vectors given a part of a text; score whole rows",
    )


def evaluate_split(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    *,
    split: str = "validation",
    passes: int | None = None,
    draws: int | None = None,
    estimator: str = estimators.NELBO,
    prompt: int = 0,
    sequences: int | None = None,
    compiled: dict | None = None,
    check: Callable[[], None] = lambda: None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> likelihood.Estimate:
    """The bound of a split, in nats per token.

    Args:
      experiment: the run's, with its mesh.
      corpus: rows of its data.
      params: parameters, on that mesh.
      split: name of a split of the corpus.
      passes: network passes of a draw; None = the config's number.
      draws: times and corruptions of each row; None = the config's number.
      estimator: a name of `evaluation.estimators`.
      prompt: so many tokens of each row are given and not scored.
      sequences: rows, spread over the split; 0 = all, None = the config's number.
      compiled: keeps programs from one call to the next; None = nothing is kept.
      check: called before every batch; may raise.
      report: called after it with the number of batches done and of all.

    Raises:
      UserError: for an estimator that this model has not.
    """
    settings = experiment.evaluation
    check_prompt(experiment, prompt)
    passes = passes or settings.passes
    exact = experiment.objective.exact
    draws = 1 if exact else draws or settings.draws  # nothing is drawn
    compiled = {} if compiled is None else compiled
    scored_by = objective(experiment, passes, estimator)
    key = (passes, estimator)
    if key not in compiled:
        compiled[key] = program(experiment, passes, estimator)
    return likelihood.estimate(
        compiled[key],
        params,
        rows_of(experiment, corpus, split, prompt, sequences, check, report),
        key=experiment.key(2),
        passes=passes,
        draws=draws,
        boundary=float(experiment.process.boundary()),
        put=lambda arrays: sharding.put(experiment.mesh, arrays),
        exact=exact,
        estimator=estimator,
        prompt=prompt,
        available=len(corpus.rows(split)),
        unknown=corpus.unknown_share(split),
        bound=scored_by.bounds,
        chain=scored_by.chain,
    )


def rows_of(
    experiment: Experiment,
    corpus: Corpus,
    split: str,
    prompt: int = 0,
    sequences: int | None = None,
    check: Callable[[], None] = lambda: None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of a split, the last one filled up; see `evaluate_split`.

    All arguments, `experiment`, `corpus`, `split`, `prompt`, `sequences`, `check` and `report`, are
    those of `evaluate_split`.
    """
    settings = experiment.evaluation
    rows = Spread(corpus.rows(split), settings.max_sequences if sequences is None else sequences)
    pieces = sharding.shards(experiment.mesh)
    size = -(-min(settings.batch_size, len(rows)) // pieces) * pieces
    stream = batches(
        rows,
        batch_size=size,
        shuffle=False,
        repeat=False,
        own=sharding.own(experiment.mesh, size),
    )
    for number, batch in enumerate(stream, 1):
        check()
        yield kept(batch, prompt)
        report(number, -(-len(rows) // size))


def kept(arrays: dict[str, np.ndarray], prompt: int) -> dict[str, np.ndarray]:
    """A batch whose first `prompt` tokens are given and not scored."""
    if not prompt:
        return arrays
    given = np.arange(arrays["z0"].shape[1]) < prompt
    weight = np.where(given, 0, arrays["weight"]).astype(arrays["weight"].dtype)
    return arrays | {"keep": arrays["keep"] | given, "weight": weight}
