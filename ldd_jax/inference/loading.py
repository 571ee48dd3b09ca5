"""A workdir's experiment and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldd_jax.config import experiment as experiments
from ldd_jax.config.experiment import Experiment
from ldd_jax.config.workdir import check_tokenizer
from ldd_jax.core.storage import at
from ldd_jax.training.checkpoints import Checkpoints


def load_trained(
    workdir: Path, *, ema: bool = True, step: int | None = None
) -> tuple[Experiment, Any, int]:
    """The experiment of a workdir, its (averaged) parameters and their step.

    Args:
      workdir: folder of the run.
      ema: the moving average of the parameters, or they themselves.
      step: of the checkpoint; None = the latest.
    """
    experiment = experiments.restore(at(workdir))
    checkpoints = Checkpoints(at(workdir), read_only=True)
    like = experiment.abstract().params
    params, meta = checkpoints.restore_params(
        like, ema=ema, step=step, states=experiment.tokens.size
    )
    check_tokenizer(experiment, meta, workdir)
    return experiment, params, int(meta["step"])
