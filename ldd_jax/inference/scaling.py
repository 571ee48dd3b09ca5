"""Factors of the rate by step for a model without masks, or one that predicts ratios."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core.checks import spread
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.registry import section
from ldd_jax.data import Corpus
from ldd_jax.evaluation import scales
from ldd_jax.inference.paths import rows_of
from ldd_jax.samplers import LinearGrid, TauLeaping
from ldd_jax.samplers.net import Net
from ldd_jax.training import sharding

PRIOR, PATH = 0, 1


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Factors of tau-leaping on the linear grid, and what its steps cost validation rows.

    plain, nats: the steps' part of the path bound, nats a token, without and with the factors;
    apart, apart_se: the difference, paired row by row. Infinite (null in JSON) where a step's rate
    is so large that a position would surely leave its token, as at t = 1 of a log-linear schedule.
    """

    factors: tuple[float, ...]
    plain: float
    nats: float
    apart: float
    apart_se: float

    def __str__(self) -> str:
        shown = " ".join(f"{f:.3f}" for f in self.factors)
        return (
            f"factors of the rate: {shown}\n"
            f"steps of the path bound {self.nats:.4f} nats/token, {self.plain:.4f} with none "
            f"({spread(self.apart, self.apart_se, 5)})"
        )

    def record(self) -> dict[str, Any]:
        """A JSON object that `sample --grid=FILE` takes: rule, grid and steps."""
        return {
            "grid": section(LinearGrid()).to_dict(),
            "step": section(TauLeaping, leap=scales.LEAP, scales=self.factors).to_dict(),
            "steps": len(self.factors),
            **{k: v for k, v in dataclasses.asdict(self).items() if k != "factors"},
        }


def scale(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    sampling: Sampling,
    *,
    sequences: int,
    seed: int = 0,
) -> Scaled:
    """Choose the factors on training rows, and tell their cost on validation rows.

    Args:
      experiment: of a workdir; any diffusion in time.
      corpus: of the run.
      params: of its model.
      sampling: num_steps M, readout and latent.
      sequences: rows of either split at most, spread over it.
      seed: of the draws.
    """
    mesh, process, pieces = experiment.mesh, experiment.process, sharding.shards(experiment.mesh)
    steps = sampling.num_steps
    t = LinearGrid()(jnp.arange(steps + 1.0), jnp.asarray(steps))

    def run(params, arrays, key, factors):
        index, z0 = arrays["index"], arrays["z0"]
        net = Net(experiment.model.bind(params), process, sampling.readout, sampling.tile, pieces)
        keys = example_keys(jax.random.fold_in(key, PRIOR), index)
        z, _ = process.corrupt_to_prior(keys, z0, jnp.ones(len(z0)), arrays["keep"])
        draw = Production.of(jax.random.fold_in(key, PATH), index)
        how: dict[str, Any] = dict(fixed=arrays["keep"], segment=arrays.get("segment"))
        return scales.costs(net, draw, z0, z, t, factors, latent=sampling.latent, **how)

    compiled = jax.jit(sharding.on(mesh, run), out_shardings=sharding.replicated(mesh))

    def costs(split: str, factors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, arrays in enumerate(rows_of(experiment, corpus, split, sequences)):
            key = jax.random.fold_in(jax.random.key(seed), number)
            found = compiled(
                params,
                sharding.put(mesh, arrays),
                sharding.everywhere(mesh, key),
                jnp.asarray(factors, jnp.float32),
            )
            yield np.asarray(jax.device_get(found), np.float64), np.sum(~arrays["keep"], axis=1)

    tried = np.array(scales.FACTORS)
    total = sum(found.sum(1) for found, _ in costs("train", tried))
    chosen = scales.best(np.asarray(total), tried)
    both = np.stack([np.ones(steps), chosen], axis=1)
    pairs = [(found.sum(0), tokens) for found, tokens in costs("validation", both)]
    nats, tokens = (np.concatenate(part) for part in zip(*pairs))
    nats, tokens = nats[tokens > 0], tokens[tokens > 0]
    with np.errstate(invalid="ignore"):  # without factors a path may have no chance at all
        apart = nats[:, 1] - nats[:, 0]
        error = apart.std(ddof=1) * np.sqrt(len(apart)) / tokens.sum()
    return Scaled(
        factors=tuple(chosen.tolist()),
        plain=float(nats[:, 0].sum() / tokens.sum()),
        nats=float(nats[:, 1].sum() / tokens.sum()),
        apart=float(apart.sum() / tokens.sum()),
        apart_se=float(error),
    )
