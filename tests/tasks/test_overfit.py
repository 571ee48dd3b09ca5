"""A small network learns 256 problems by heart and solves all of them."""

from __future__ import annotations

import pytest

from ldd_jax.core import registry
from ldd_jax.inference import loading, solve
from tests.cli import tools


@pytest.mark.slow
def test_256_problems_to_the_last(tmp_path):
    """Countdown at CPU size, easy first, 16 calls."""
    tools.good(
        "train",
        tools.recipe("lddm_g", "countdown"),
        f"--workdir={tmp_path}",
        "--config.data.train_count=256",
        "--config.data.validation_count=64",
        "--config.training.num_steps=1500",
        "--config.optim.lr=0.002",
        "--config.training.ema_decay=0.99",
    )
    experiment, params, _ = loading.load_trained(tmp_path)
    data = registry.build("data", experiment.config.data)
    problems = [p for p, _ in data.task.problems("train", 256, data.seed)]
    solver = solve.Solver.make(experiment, experiment.sampling)
    answers = list(solver.answers(params, problems, seed=0, num_steps=16))
    assert sum(a.strict for a in answers) == 256
