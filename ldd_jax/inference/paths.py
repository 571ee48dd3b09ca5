"""Rows of a corpus, and rows of nothing, run along time grids with the programs that do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core.draws import Production, example_keys, uniforms
from ldd_jax.data import Corpus, Spread, batches
from ldd_jax.evaluation.matching import match
from ldd_jax.evaluation.path import MaskLosses, path_nats
from ldd_jax.samplers import LinearGrid
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.trajectory import Along, along
from ldd_jax.training import sharding

FINER, MATCHED = 8, 256  # steps of the teacher for one of the student, rows of both


def rows_of(experiment: Experiment, corpus: Corpus, split: str, sequences: int) -> Any:
    """Batches of a split; the last one is filled up.

    Args:
      experiment: the run's, with its mesh.
      corpus: rows of its data.
      split: name of a split.
      sequences: at most so many rows, spread over it.
    """
    pieces = sharding.shards(experiment.mesh)
    rows = Spread(corpus.rows(split), sequences)
    size = -(-min(experiment.evaluation.batch_size, len(rows)) // pieces) * pieces
    return batches(
        rows,
        batch_size=size,
        shuffle=False,
        repeat=False,
        own=sharding.own(experiment.mesh, size),
    )


class Runs:
    """Rows of a corpus run along grids, with the programs that do it."""

    def __init__(
        self, experiment: Experiment, params: Any, sampling: Sampling, sequences: int, seed: int
    ):
        self.experiment, self.params = experiment, params
        self.sampling, self.sequences, self.seed = sampling, sequences, seed
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
                signal=arrays.get("signal"),
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
        """Every batch run along its times, with its free tokens [rows].

        Args:
          corpus: rows of the run's data.
          split: name of a split.
          times: (batch number, rows) to times [T, rows].
          every: look at all masked positions of a call, not only at those it reveals.
        """
        mesh = self.experiment.mesh
        key = jax.random.key(self.seed)
        stream = rows_of(self.experiment, corpus, split, self.sequences)
        for number, arrays in enumerate(stream):
            size = len(arrays["keep"])
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

    def matched(self, grid: LinearGrid, steps: int) -> np.ndarray:
        """Times [M + 1] of the published loss: its scales of the rate, as the grid that they are.

        The last is where it leaves off, not `end`: the removal reveals the rest.
        """
        e, sampling, length = self.experiment, self.sampling, self.experiment.config.data.length
        pieces = sharding.shards(e.mesh)

        def run(params, seed):
            index = jnp.arange(-(-MATCHED // pieces) * pieces)
            key = lambda site: jax.random.fold_in(jax.random.key(seed), site)
            net = Net(e.model.bind(params), e.process, sampling.readout, sampling.tile, pieces)
            draws = (Production.of(key(1), index), Production.of(key(2), index))
            prior = e.process.prior(example_keys(key(0), index), length)
            found = match(net, draws, prior, steps, FINER, grid=grid, latent=sampling.latent)
            return found.scales

        whole = sharding.replicated(e.mesh)
        scales = jax.jit(sharding.on(e.mesh, run), out_shardings=whole)(self.params, self.seed)
        t = np.asarray(grid(jnp.arange(steps + 1.0), jnp.asarray(steps)), np.float64)
        rate = np.asarray(e.process.schedule.weight(jnp.asarray(t[:-1])), np.float64)
        moved = np.minimum(np.asarray(scales, np.float64) * rate * (t[:-1] - t[1:]), 1)
        u = np.concatenate([[1.0], np.cumprod(1 - moved)])
        return np.concatenate([[1.0], np.minimum.accumulate(self.times_of(u[1:]))])

    def times_of(self, u: np.ndarray) -> np.ndarray:
        """Times of shares of any shape."""
        return self.inverse(u * self.noise(np.ones(())))

    def bound(
        self, corpus: Corpus, t: np.ndarray, fit: MaskLosses
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nats and tokens of every validation row along one grid.

        How many masks a token is revealed among is luck, and e(n) says what the luck is worth: the
        sum of e(n) over tokens is taken off and its mean, the path objective, put back.

        Args:
          corpus: its validation rows are run.
          t: times of the grid, [T].
          fit: e(n), mean nats of a masked position among n.
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
