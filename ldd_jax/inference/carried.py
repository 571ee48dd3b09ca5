"""The bound of the sampler that runs: of a split, of texts, given prompts, on all devices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config.experiment import Experiment
from ldd_jax.config.sections import Sampling
from ldd_jax.core.checks import spread
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.data import Corpus
from ldd_jax.evaluation import likelihood
from ldd_jax.evaluation.carried import Paid, along_text
from ldd_jax.inference import own_law
from ldd_jax.inference.evaluate import rows_of
from ldd_jax.inference.programs import network
from ldd_jax.training import sharding

START, PATH = 0, 1
TRAJECTORIES = 4


@dataclasses.dataclass(frozen=True)
class Estimate(likelihood.Estimate):
    """`nats`: the mean over paths, a bound for every number of them.

    `importance`: -log mean_m exp(-l_m), a bound that is tighter in the mean, with its standard
    error over sequences; `sampler` in words.
    """

    importance: float = math.nan
    importance_se: float = math.nan
    sampler: str = ""

    @property
    def meaning(self) -> str:
        """Whose likelihood it is."""
        kind = "the exact likelihood of" if self.exact else "an upper bound for"
        return f"{kind} {self.sampler}"

    @property
    def _bounds(self) -> str:
        return "" if self.exact else self.sampler

    def record(self) -> dict[str, Any]:
        """A JSON line."""
        return super().record() | {
            "sampler": self.sampler,
            "importance_nats_per_token": self.importance,
            "importance_se": self.importance_se,
        }

    def __str__(self) -> str:
        some = f"{self.sequences}" + f" of {self.available}" * (self.available > self.sequences)
        paths = f"{self.draws} path{'s' * (self.draws > 1)} each"
        tighter = (
            ""
            if self.exact or self.draws == 1
            else f"; importance weighted {spread(self.importance, self.importance_se, 4)}"
        )
        return (
            f"{self.name} {spread(self.nats, self.se, 4)} nats/token{tighter} ({some} sequences, "
            f"{self.tokens} tokens, {paths}{self._how})"
        )


def paid(
    experiment: Experiment,
    sampling: Sampling,
    params: Any,
    arrays: dict[str, Any],
    key: Any,
    num_steps: Any,
) -> Paid:
    """What every row of a batch costs on one path, which depends on the key and its index alone.

    Args:
      experiment: its model, process and devices.
      sampling: of `own_law.settings`.
      params: of the model.
      arrays: z0 and keep [B, L], index [B]; segment, unit [B, L] and label [B] where there are.
      key: of the paths.
      num_steps: traced or not.
    """
    text, given = arrays["z0"], arrays["keep"]
    index, segment = arrays["index"], arrays.get("segment")
    label, classes = arrays.get("label"), experiment.model.num_classes
    if classes and label is None:
        label = jnp.full(len(text), classes, jnp.int32)
    if segment is not None:
        given = given | (segment == 0)
    ones = jnp.ones(len(text), jnp.result_type(float))
    keys = example_keys(jax.random.fold_in(key, START), index)
    return along_text(
        network(experiment, sampling, params, label, arrays.get("unit"), arrays.get("signal")),
        sampling.step,
        Production.of(jax.random.fold_in(key, PATH), index),
        experiment.process.corrupt_to_prior(keys, text, ones, given),
        text,
        num_steps,
        grid=sampling.grid,
        latent=sampling.latent,
        fixed=given,
        segment=segment,
    )


def program(experiment: Experiment, sampling: Sampling) -> Callable[..., Paid]:
    """(params, arrays, key, num_steps) -> `paid` on all devices; one for every number of steps."""
    mesh = experiment.mesh
    run = lambda *inputs: paid(experiment, sampling, *inputs)
    jitted = jax.jit(sharding.on(mesh, run), out_shardings=sharding.replicated(mesh))
    return lambda params, arrays, key, steps: jitted(
        params, arrays, sharding.everywhere(mesh, key), np.int32(steps)
    )


def importance(nats: np.ndarray) -> np.ndarray:
    """-log mean_m exp(-l_m) of rows [S, M]."""
    least = nats.min(1, keepdims=True)
    shift = np.where(np.isfinite(least), least, 0)
    with np.errstate(divide="ignore"):
        return (shift - np.log(np.exp(shift - nats).mean(1, keepdims=True)))[:, 0]


def estimate(
    run: Callable[..., Paid],
    params: Any,
    batches: Iterator[dict[str, np.ndarray]],
    experiment: Experiment,
    sampling: Sampling,
    *,
    key: Any,
    trajectories: int,
    **about: Any,
) -> Estimate:
    """Over all sequences and paths, in float64 on the host.

    Args:
      run: (params, arrays, key, num_steps) to the nats, tokens and calls of every row.
      params: parameters.
      batches: of a split, as `rows_of` makes them.
      experiment: of these parameters.
      sampling: the sampler whose likelihood it is.
      key: PRNG key; batches and paths have their own.
      trajectories: paths of each sequence; one where the rule's likelihood is exact.
      about: further fields of the estimate.

    Raises:
      UserError: if no token is scored.
    """
    exact = own_law.way(experiment, sampling).exact
    trajectories = 1 if exact else trajectories
    nats, tokens, calls = [], [], 0.0
    for i, arrays in enumerate(batches):
        local = sharding.put(experiment.mesh, arrays)
        at = jax.random.fold_in(key, i)
        found = [
            jax.device_get(run(params, local, jax.random.fold_in(at, d), sampling.num_steps))
            for d in range(trajectories)
        ]
        real = found[0].tokens > 0
        stack = lambda name, found=found, real=real: np.stack(
            [np.asarray(getattr(f, name), np.float64)[real] for f in found], 1
        )
        nats.append(stack("nats"))
        tokens.append(np.asarray(found[0].tokens, np.float64)[real])
        calls += float(stack("calls").mean(1).sum())
    all_nats, n = np.concatenate(nats), np.concatenate(tokens)
    mean, se = likelihood.per_token(all_nats.mean(1), n)
    tighter, tighter_se = likelihood.per_token(importance(all_nats), n)
    return Estimate(
        nats=mean,
        se=se,
        monte_carlo_se=likelihood.of_draws(all_nats, n),
        tokens=int(n.sum()),
        sequences=len(n),
        draws=trajectories,
        passes=1,
        calls=round(trajectories * calls / len(n)),
        exact=exact,
        estimator="carried",
        importance=tighter,
        importance_se=tighter_se,
        sampler=own_law.describe(experiment, sampling),
        **about,
    )


def evaluate_split(
    experiment: Experiment,
    corpus: Corpus,
    params: Any,
    sampling: Sampling,
    *,
    run: Callable[..., Paid] | None = None,
    trajectories: int = TRAJECTORIES,
    split: str = "validation",
    prompt: int = 0,
    sequences: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """The sampler's own bound of a split, given the first `prompt` tokens of each row.

    Args:
      experiment: of a workdir.
      corpus: whose split.
      params: of the model.
      sampling: of `own_law.settings`; it runs `num_steps`.
      run: `program` of it, where that is kept.
      trajectories: paths of every row; one where it is exact.
      split: train or validation.
      prompt: first tokens, given and not priced.
      sequences: rows at most, spread over the split; 0 = all, None = the config's number.
      report: told the number of batches done and of all.

    Raises:
      UserError: if no token is scored.
    """
    return estimate(
        run or program(experiment, sampling),
        params,
        rows_of(experiment, corpus, split, prompt, sequences, report=report),
        experiment,
        sampling,
        key=experiment.key(2),
        trajectories=trajectories,
        prompt=prompt,
        available=len(corpus.rows(split)),
        unknown=corpus.unknown_share(split),
    )
