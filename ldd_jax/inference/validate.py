"""How a run is judged while it trains and at its end: by held-out rows, or by its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ldd_jax.config.experiment import Experiment
from ldd_jax.data import Corpus
from ldd_jax.evaluation.likelihood import Estimate
from ldd_jax.inference import energy, evaluate

ROLLOUTS = 4096  # where the config sets no limit


def validate(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    *,
    sequences: int,
    compiled: dict,
    check: Callable[[], None],
    report: Callable[[int, int], None],
) -> Estimate | energy.Energy:
    """A bound on validation rows; on a target, what its weight says of rollouts.

    Args:
      experiment: of the run.
      corpus: its data.
      params: that are judged.
      sequences: rows or rollouts at most; 0 = all rows, 4,096 rollouts.
      compiled: keeps programs.
      check: called before every batch; may raise.
      report: told the number of batches done and of all.
    """
    how: dict[str, Any] = dict(compiled=compiled, check=check, report=report)
    if experiment.target is not None:
        return energy.measure(experiment, params, rollouts=sequences or ROLLOUTS, **how)
    return evaluate.evaluate_split(experiment, corpus, params, sequences=sequences, **how)
