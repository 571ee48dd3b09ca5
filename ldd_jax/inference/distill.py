"""The time grid of a given number of steps that a trained masked model samples best with.

For masked diffusion a learned sampler (LSD and LSD+, arXiv 2509.19962) is a time grid:
`evaluation.path`. The losses e(n) are measured on training rows along the sampler's own path, with
the latent carried where it is; the grid that minimises the path objective is then judged on
validation rows beside the linear and the cosine one, all three on the same draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.config.stored import fingerprint
from ldd_jax.core.checks import require, spread
from ldd_jax.core.registry import section
from ldd_jax.data import Corpus
from ldd_jax.evaluation.path import MaskLosses, best_levels, by_counts, path_nats
from ldd_jax.inference.paths import FINER, Runs
from ldd_jax.samplers import CosineGrid, LinearGrid, TableGrid

Report = Callable[[str], None]
PATH, TRAJECTORY = OBJECTIVES = ("path", "trajectory")
ROUNDS = 2  # a carried latent depends on the grid that it was carried along


@dataclasses.dataclass(frozen=True)
class PathBound:
    """A grid's bound: nats a token of validation rows, its error, and what the objective says.

    expected: J of the losses measured on training rows. above: difference to the better of linear
    and cosine, paired row by row, and its error.
    """

    name: str
    times: tuple[float, ...]
    nats: float
    se: float
    expected: float
    above: float
    above_se: float

    def __str__(self) -> str:
        apart = f", {spread(self.above, self.above_se, 5)} to the better of linear and cosine"
        return (
            f"{self.name:8s} path bound {spread(self.nats, self.se, 4)} nats/token "
            f"(J {self.expected:.4f}{apart if self.above else ''})"
        )


@dataclasses.dataclass(frozen=True)
class Distilled:
    """A learned grid, the losses that it was learned from, and the bounds of all grids."""

    grid: TableGrid
    losses: MaskLosses
    counts_nats: float
    bounds: tuple[PathBound, ...]

    @property
    def floor(self) -> float:
        """Nats a token with one position a call, as far as e(n) goes."""
        return self.losses.rising().total / len(self.losses.values)

    def __str__(self) -> str:
        floor = f"one position a call: {self.floor:.4f} nats/token, as far as e(n) of training rows"
        return "\n".join([*map(str, self.bounds), f"{floor} goes"])

    def record(self) -> dict[str, Any]:
        """A JSON object that `sample --grid=FILE` takes: the grid, its steps, and where from."""
        number = lambda values: [None if np.isnan(v) else float(v) for v in values]
        return {
            "grid": section(self.grid).to_dict(),
            "steps": len(self.grid.times) - 1,
            "bounds": [dataclasses.asdict(b) for b in self.bounds],
            "losses": number(self.losses.values),
            "measurements": number(self.losses.counts),
            "one_position_a_call": self.floor,
            "fixed_counts": self.counts_nats,
        }


def is_grid(experiment: Experiment) -> bool:
    """Whether its learned sampler is a time grid; else it is factors of the rate (`scaling`).

    Raises:
      UserError: for a model that has no time, or whose states are points.
    """
    process = experiment.process
    require(
        process.schedule is not None,
        "an autoregressive model has no reverse diffusion: there are no steps to make fewer",
    )
    require(
        not process.points,
        f"the states of process {experiment.config.process.name} are points: it has no masks whose "
        "times could be learned, and no rates",
    )
    return process.absorbing and process.predicts == "clean"


def distill(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    sampling: Sampling,
    *,
    sequences: int,
    seed: int = 0,
    objective: str = PATH,
    report: Report = lambda text: None,
) -> Distilled:
    """Learn the grid of `sampling.num_steps` steps for its read-out and latent.

    Args:
      experiment: of a workdir, with masks and x_theta (`is_grid`).
      corpus: of the run.
      params: of its model.
      sampling: num_steps M; readout and latent; its step is the ancestral one whatever it says.
      sequences: rows of either split at most, spread over it.
      seed: of the draws.
      objective: "path", or "trajectory", the published loss (`evaluation.matching`), whose grid is
        then bounded beside the others, and is the one that is handed out.
      report: told what is done.
    """
    runs = Runs(experiment, params, sampling, sequences, seed)
    steps, end = sampling.num_steps, LinearGrid().end
    usual: dict[str, Any] = {"linear": LinearGrid(end=end), "cosine": CosineGrid(end=end)}
    at = jnp.arange(steps + 1.0)
    times = {name: np.asarray(grid(at, steps), np.float64) for name, grid in usual.items()}
    levels = {name: runs.levels(t) for name, t in times.items()}
    carried = experiment.model.latent and not sampling.latent.off
    best = levels["linear"]
    for number in range(ROUNDS if carried else 1):
        report(f"measuring e(n), round {number + 1}")
        losses = runs.losses(corpus, best)
        fit = losses.rising()
        counts, nats = by_counts(fit, steps)
        dealt = np.maximum(counts / counts[0], best[-1])
        best = best_levels(fit, [*levels.values(), dealt])
    times |= {"counts": runs.times(dealt, end), "learned": runs.times(best, end)}
    chosen = "learned"
    if objective == TRAJECTORY:
        report(f"running {FINER * steps} steps beside {steps}")
        chosen = "matched"
        times[chosen] = runs.matched(usual["linear"], steps)
    found = {}
    for name, t in times.items():
        report(f"path bound of the {name} grid")
        found[name] = runs.bound(corpus, t, fit)
    return Distilled(
        grid=TableGrid(times=tuple(times[chosen].tolist())),
        losses=losses,
        counts_nats=nats / len(fit.values),
        bounds=tuple(_bounds(found, times, runs, fit)),
    )


def _bounds(found: dict, times: dict, runs: Runs, fit: MaskLosses) -> Iterator[PathBound]:
    better = min(("linear", "cosine"), key=lambda name: found[name][0].sum())
    (base, tokens), length = found[better], len(fit.values)
    error = lambda rows: float(rows.std(ddof=1) * np.sqrt(len(rows)) / tokens.sum())
    for name, (nats, _) in found.items():
        apart = nats - base
        yield PathBound(
            name=name,
            times=tuple(times[name].tolist()),
            nats=float(nats.sum() / tokens.sum()),
            se=error(nats),
            expected=path_nats(fit, runs.levels(times[name]))[0] / length,
            above=float(apart.sum() / tokens.sum()),
            above_se=error(apart),
        )


def about(experiment: Experiment, step: int, sampling: Sampling) -> dict[str, Any]:
    """What a learned grid belongs to.

    Args:
      experiment: the run's.
      step: of its checkpoint.
      sampling: with the read-out and what becomes of the latent.
    """
    return {
        "config": fingerprint(experiment.config),
        "recipe": experiment.config.recipe,
        "checkpoint": step,
        "readout": section(sampling.readout).to_dict(),
        "latent": section(sampling.latent).to_dict(),
    }
