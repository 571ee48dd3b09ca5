"""What training and the other commands share: the bound of a split, and a trained workdir."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldd_jax import experiment as experiments
from ldd_jax import scoring
from ldd_jax.data import Corpus, Spread, batches
from ldd_jax.evaluation import estimators, likelihood
from ldd_jax.experiment import Experiment
from ldd_jax.training import sharding
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.workdir import check_tokenizer


def step_function(experiment: Experiment, like: states.TrainState) -> Callable:
    """The jitted update: (state, donated, batch, key) -> (state, metrics)."""
    update = experiment.update

    def train_step(state, arrays, key):  # named, for profiles and compile logs
        return update(state, arrays, key)

    return jax.jit(
        sharding.on(experiment.mesh, train_step),
        donate_argnums=0,
        out_shardings=(states.shardings(like), None),
    )


def evaluate(
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
    """The bound of a split, given the first `prompt` tokens of each row; `compiled` keeps programs.

    At most `sequences` rows are scored, spread over the split: 0 = all, None = the config's number.
    `check` is called before every batch and may raise, `report` after it with the number of batches
    done and of all.

    Raises:
      UserError: for an estimator that this model has not.
    """
    settings = experiment.evaluation
    passes = passes or settings.passes
    exact = experiment.objective.exact
    draws = 1 if exact else draws or settings.draws  # nothing is drawn
    available = corpus.rows(split)
    rows = Spread(available, settings.max_sequences if sequences is None else sequences)
    pieces = sharding.shards(experiment.mesh)
    size = -(-min(settings.batch_size, len(rows)) // pieces) * pieces
    compiled = {} if compiled is None else compiled
    scored_by = scoring.objective(experiment, passes, estimator)
    program = (passes, estimator)
    if program not in compiled:
        compiled[program] = scoring.program(experiment, passes, estimator)
    stream = batches(
        rows,
        batch_size=size,
        shuffle=False,
        repeat=False,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )

    def scored() -> Iterator[dict[str, np.ndarray]]:
        for number, batch in enumerate(stream, 1):
            check()
            yield kept(batch, prompt)
            report(number, -(-len(rows) // size))

    return likelihood.estimate(
        compiled[program],
        params,
        scored(),
        key=experiment.key(2),
        passes=passes,
        draws=draws,
        boundary=float(experiment.process.boundary()),
        put=lambda arrays: sharding.put(experiment.mesh, arrays),
        exact=exact,
        estimator=estimator,
        prompt=prompt,
        available=len(available),
        unknown=corpus.unknown_share(split),
        bound=scored_by.bounds,
        chain=scored_by.chain,
    )


def kept(arrays: dict[str, np.ndarray], prompt: int) -> dict[str, np.ndarray]:
    """A batch whose first `prompt` tokens are given and not scored."""
    if not prompt:
        return arrays
    given = np.arange(arrays["z0"].shape[1]) < prompt
    weight = np.where(given, 0, arrays["weight"]).astype(arrays["weight"].dtype)
    return arrays | {"keep": arrays["keep"] | given, "weight": weight}


def load(
    workdir: Path, *, ema: bool = True, step: int | None = None
) -> tuple[Experiment, Any, int]:
    """The experiment of a workdir, its (averaged) parameters and their step."""
    experiment = experiments.restore(Path(workdir))
    checkpoints = Checkpoints(Path(workdir), read_only=True)
    like = states.abstract(experiment.model, experiment.update.optimizer, experiment.mesh).params
    params, meta = checkpoints.restore_params(like, ema=ema, step=step)
    check_tokenizer(experiment, meta, workdir)
    return experiment, params, int(meta["step"])
