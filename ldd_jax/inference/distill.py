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

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.config.stored import fingerprint
from ldd_jax.core.checks import require, spread
from ldd_jax.core.draws import example_keys, uniforms
from ldd_jax.core.registry import section
from ldd_jax.data import Corpus, Spread, batches
from ldd_jax.evaluation.path import MaskLosses, best_levels, by_counts, path_nats
from ldd_jax.evaluation.trajectory import Along, along
from ldd_jax.samplers import CosineGrid, LinearGrid, TableGrid
from ldd_jax.samplers.base import Net
from ldd_jax.training import sharding

Report = Callable[[str], None]
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


def check(experiment: Experiment) -> None:
    """Refuse what has no grid to learn.

    Raises:
      UserError: for a model without masks, or one that predicts no probabilities.
    """
    process = experiment.process
    require(
        process.absorbing and process.predicts == "clean",
        "a learned sampler is a time grid for masked diffusion that predicts x_theta; this model "
        f"is of another kind ({experiment.config.process.name})",
    )


def distill(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    sampling: Sampling,
    *,
    sequences: int,
    seed: int = 0,
    report: Report = lambda text: None,
) -> Distilled:
    """Learn the grid of `sampling.num_steps` steps for its read-out and latent.

    Args:
      experiment: of a workdir.
      corpus: of the run.
      params: of its model.
      sampling: num_steps M; readout and latent; its step is the ancestral one whatever it says.
      sequences: rows of either split at most, spread over it.
      seed: of the draws.
      report: told what is done.

    Raises:
      UserError: as `check`.
    """
    check(experiment)
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
    found = {}
    for name, t in times.items():
        report(f"path bound of the {name} grid")
        found[name] = runs.bound(corpus, t, fit)
    return Distilled(
        grid=TableGrid(times=tuple(times["learned"].tolist())),
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


class Runs:
    """Rows of a corpus run along grids, with the programs that do it."""

    def __init__(
        self, experiment: Experiment, params: Any, sampling: Sampling, sequences: int, seed: int
    ):
        self.experiment, self.params = experiment, params
        self.sequences, self.seed = sequences, seed
        schedule = experiment.process.schedule
        self.noise = lambda t: np.asarray(schedule.noise(jnp.asarray(t)), np.float64)
        self.inverse = lambda noise: np.asarray(schedule.inverse(jnp.asarray(noise)), np.float64)
        mesh, model = experiment.mesh, experiment.model
        pieces = sharding.shards(mesh)

        def run(params, arrays, t, key, every):
            label = arrays.get("label")
            if model.num_classes and label is None:
                label = jnp.full(t.shape[1], model.num_classes, jnp.int32)
            net = Net(
                model.bind(params),
                experiment.process,
                sampling.readout,
                sampling.tile,
                pieces,
                label=label,
            )
            z0 = arrays["z0"]
            return along(
                net,
                z0,
                uniforms(example_keys(key, arrays["index"]), z0.shape[1:]),
                t,
                latent=sampling.latent,
                fixed=arrays["keep"],
                segment=arrays.get("segment"),
                every=every,
            )

        self._run = jax.jit(
            sharding.on(mesh, run),
            out_shardings=sharding.replicated(mesh),
            static_argnums=4,
        )

    def levels(self, t: np.ndarray) -> np.ndarray:
        """Shares that are masked at times [M + 1]."""
        return self.noise(t) / self.noise(np.ones(()))

    def times(self, u: np.ndarray, end: float) -> np.ndarray:
        """Times [M + 1] of shares, from 1 down to `end`."""
        t = self.inverse(u * self.noise(np.ones(())))
        t = np.minimum.accumulate(np.clip(t, end, 1))
        return np.concatenate([[1.0], t[1:-1], [end]])

    def along(
        self, corpus: Corpus, split: str, times: Callable[[int, int], np.ndarray], *, every: bool
    ) -> Iterator[tuple[Along, np.ndarray]]:
        """Every batch run along times(batch number, rows) [T, rows], and its free tokens [rows]."""
        mesh, pieces = self.experiment.mesh, sharding.shards(self.experiment.mesh)
        rows = Spread(corpus.rows(split), self.sequences)
        size = -(-min(self.experiment.evaluation.batch_size, len(rows)) // pieces) * pieces
        stream = batches(
            rows,
            batch_size=size,
            shuffle=False,
            repeat=False,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        key = jax.random.key(self.seed)
        for number, arrays in enumerate(stream):
            free = np.sum(~arrays["keep"], axis=1)
            found = self._run(
                self.params,
                sharding.put(mesh, arrays),
                jnp.asarray(times(number, size), jnp.float32),
                sharding.everywhere(mesh, jax.random.fold_in(key, number)),
                every,
            )
            yield jax.device_get(found), free

    def losses(self, corpus: Corpus, u: np.ndarray) -> MaskLosses:
        """E(n) on training rows, along grids that a shift of each row's own spreads over all n.

        The first call sees nothing but masks, as the sampler's does; the others stand anywhere
        between two points of the grid.
        """
        steps = len(u) - 1

        def times(number: int, rows: int) -> np.ndarray:
            shift = (np.random.default_rng((self.seed, number)).permutation(rows) + 0.5) / rows
            at = np.interp(np.arange(steps)[:, None] + shift, np.arange(steps + 1), u)
            return np.concatenate([np.ones((1, rows)), self.times_of(at)])

        masked, loss, most = [], [], 1
        for found, free in self.along(corpus, "train", times, every=True):
            masked.append(found.masked.ravel())
            loss.append(found.loss.ravel())
            most = max(most, int(free.max()))
        return MaskLosses.of(np.concatenate(masked), np.concatenate(loss), most)

    def times_of(self, u: np.ndarray) -> np.ndarray:
        """Times of shares of any shape."""
        return self.inverse(u * self.noise(np.ones(())))

    def bound(
        self, corpus: Corpus, t: np.ndarray, fit: MaskLosses
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nats and tokens of every validation row along one grid.

        How many masks a token is revealed among is luck, and e(n) says what the luck is worth: the
        sum of e(n) over tokens is taken off and its mean, the path objective, put back.
        """
        u, nats, tokens = self.levels(t), [], []
        e = np.concatenate([[0.0], fit.values])
        expected: dict[int, float] = {}
        for found, free in self.along(
            corpus, "validation", lambda _, rows: np.repeat(t[:, None], rows, 1), every=False
        ):
            after = np.concatenate([found.masked[1:], np.zeros_like(found.masked[:1])])
            revealed = found.masked - after
            luck = np.sum(revealed * e[np.minimum(found.masked, len(e) - 1)], axis=0)
            for n in np.unique(free[free > 0]):
                some = MaskLosses(fit.values[:n], fit.counts[:n])
                expected[int(n)] = expected.get(int(n)) or path_nats(some, u)[0]
            mean = np.asarray([expected.get(int(n), 0.0) for n in free])
            real = free > 0
            nats.append((found.nats - luck + mean)[real])
            tokens.append(free[real])
        return np.concatenate(nats), np.concatenate(tokens)


def about(experiment: Experiment, step: int, sampling: Sampling) -> dict[str, Any]:
    """What a learned grid belongs to."""
    return {
        "config": fingerprint(experiment.config),
        "recipe": experiment.config.recipe,
        "checkpoint": step,
        "readout": section(sampling.readout).to_dict(),
        "latent": section(sampling.latent).to_dict(),
    }
