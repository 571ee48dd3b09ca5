"""The likelihood of a data set, or its bound, with standard errors, and what it bounds."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.checks import require, spread
from ldd_jax.core.types import Array, Loss, Model, as_batch

BOUNDS = {
    1: "the sampler that runs one pass per step with h = 0",
    2: "the sampler that runs two passes per step, starting from h = 0",
}


def bounds(passes: int) -> str:
    """What a k-pass NELBO is an upper bound for (it never bounds the sampler that carries h)."""
    return BOUNDS.get(passes, f"the sampler that runs {passes} passes per step from h = 0")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Nats per token: mean, its standard error over sequences, and that of the drawn times alone.

    One sequence, or one draw, tells no error: NaN.

    `calls` counts trunk evaluations per sequence. `exact`: the likelihood itself, which is the
    case of a bound that is tight, so that its fields have the same names. `available`: sequences
    of the split, of which `sequences` were scored; 0 = not told. `unknown`: share of the split's
    tokens that the tokenizer does not know; None = not told. `bound`: whether the objective says
    that its mean is one (or the likelihood); `chain`: what it says of the sampler besides.
    `terms`: what the mean is the sum of, by name, where the objective says so.
    """

    nats: float
    se: float
    monte_carlo_se: float
    tokens: int
    sequences: int
    draws: int
    passes: int
    calls: int
    exact: bool = False
    estimator: str = "nelbo"
    prompt: int = 0
    available: int = 0
    unknown: float | None = None
    bound: bool = True
    chain: str = ""
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """NLL, NELBO, or a mean loss."""
        return "NLL" if self.exact else "NELBO" if self.bound else "mean loss"

    @property
    def meaning(self) -> str:
        """What the number says of which sampler."""
        if self.exact:
            return "the exact likelihood of the model's own left-to-right sampler"
        if not self.bound:
            return "no bound of any sampler: the objective does not say that its mean is one"
        return f"an upper bound for {self._bounds}"

    @property
    def _bounds(self) -> str:
        return "" if self.exact or not self.bound else bounds(self.passes) + self.chain

    @property
    def score(self) -> float:
        """By which checkpoints are compared, the lower the better."""
        return self.nats

    def record(self) -> dict[str, Any]:
        """A JSON line."""
        return {
            "nelbo_nats_per_token": self.nats,
            "nelbo_se": self.se,
            "monte_carlo_se": self.monte_carlo_se,
            "nelbo_ppl": math.exp(min(self.nats, 700)),
            "nelbo_ppl_se": math.exp(min(self.nats, 700)) * self.se,
            "bits_per_token": self.nats / math.log(2),
            "tokens": self.tokens,
            "sequences": self.sequences,
            "sequences_available": max(self.available, self.sequences),
            "draws": self.draws,
            "passes": self.passes,
            "network_calls_per_sequence": self.calls,
            "exact": self.exact,
            "estimator": self.estimator,
            "unknown_share": self.unknown,
            "prompt_tokens": self.prompt,
            "bound": self.bound,
            "bounds": self._bounds,
        } | ({"terms": dict(self.terms)} if self.terms else {})

    def below(self, unigram: float) -> float:
        """By how many per cent it is below the unigram entropy of the same tokens."""
        return 100 * (1 - self.nats / unigram) if unigram else math.nan

    def summary(self, unigram: float) -> dict[str, Any]:
        """What a run keeps of it."""
        compared = {"unigram_entropy": unigram, "percent_below_unigram": self.below(unigram)}
        return compared | self.record()

    def beside(self, unigram: float) -> str:
        """The number beside that entropy, which the best model without context reaches."""
        below = self.below(unigram)
        return (
            f"{self.name} {spread(self.nats, self.se, 4)} nats/token is {abs(below):.1f} % "
            f"{'above' if below < 0 else 'below'} the unigram entropy ({unigram:.4f}) of the same "
            f"tokens; {self.meaning}"
        )

    @property
    def _how(self) -> str:
        """What is not the default."""
        how = "" if self.estimator == "nelbo" else f", estimator {self.estimator}"
        how += "" if self.unknown is None else f", {self.unknown:.2%} unknown symbols"
        return how + (f", given {self.prompt} tokens" if self.prompt else "")

    def __str__(self) -> str:
        ppl = math.exp(min(self.nats, 700))
        sign = "=" if self.exact else "<=" if self.bound else "would be"
        passes = f"pass{'es' * (self.passes > 1)}"
        parts = " + ".join(f"{nats:.4f} {name}" for name, nats in self.terms.items())
        some = f"{self.sequences}" + f" of {self.available}" * (self.available > self.sequences)
        return (
            f"{self.name} {spread(self.nats, self.se, 4)} nats/token, perplexity {sign} "
            f"{spread(ppl, ppl * self.se, 3)} ({self.passes} {passes}, {some} sequences, "
            f"{self.tokens} tokens, {self.draws} draws each{self._how})"
        ) + (f"\n  = {parts}" if parts else "")


def per_token(nats: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Nats per token of sequences [S], and the standard error over them; NaN for one.

    Raises:
      UserError: if no token is scored.
    """
    size, total = len(tokens), float(tokens.sum())
    require(total > 0, "nothing is left to be scored: every token of these rows is given")
    mean = float(nats.sum() / total)
    residual = nats - mean * tokens
    spread = float((residual**2).sum()) * size / (size - 1) if size > 1 else math.nan
    return mean, math.sqrt(spread) / total


def of_draws(nats: np.ndarray, tokens: np.ndarray) -> float:
    """Standard error, nats per token, that is due to the draws [S, D] alone; NaN for one."""
    draws = nats.shape[1]
    if draws == 1:
        return math.nan
    within = nats.var(1, ddof=1).sum() / draws
    return math.sqrt(within) / float(tokens.sum())


def score_fn(
    model: Model, objective: Callable[..., Loss]
) -> Callable[[Any, dict, Array], tuple[Any, Array]]:
    """(params, arrays, key) -> summed nats and scored tokens of every sequence; jit at the edge.

    Nats are [B], or the terms of which they are the sum, by name, where the objective has some.
    """

    def score(params, arrays, key):
        batch = as_batch(arrays)._replace(norm=jnp.ones(()))
        loss = objective(model.bind(params), batch, key)
        found = loss.metrics.get("terms", loss.metrics["loss_B"])
        return found, jnp.sum(batch.weight, -1)

    return score


def estimate(
    score: Callable,
    params: Any,
    batches: Iterable[dict[str, np.ndarray]],
    *,
    key: Array,
    passes: int,
    draws: int,
    boundary: float,
    put: Callable,
    exact: bool = False,
    estimator: str = "nelbo",
    prompt: int = 0,
    available: int = 0,
    unknown: float | None = None,
    bound: bool = True,
    chain: str = "",
) -> Estimate:
    """Sum in float64 on the host over all sequences and draws.

    Args:
      score: (params, arrays, key) to nats and tokens of every row, of one draw; see `score_fn`.
      params: parameters.
      batches: arrays [B, ...]; rows without a scored token do not count.
      key: PRNG key; batches and draws have their own.
      passes: network passes of a draw, for the record.
      draws: of each batch.
      boundary: prior term, nats per token.
      put: places a batch on the devices.
      exact: whether it is the likelihood itself.
      estimator: its name, for the record.
      prompt: tokens of each row that are given and not scored.
      available: rows of the split, of which those scored are a part.
      unknown: share of its tokens that the tokenizer does not know; None = not told.
      bound: whether the objective says that its mean is one.
      chain: what the objective says of the sampler besides.

    Raises:
      UserError: if no token is scored.
    """
    nats, tokens = [], []
    sums: collections.Counter[str] = collections.Counter()
    for i, arrays in enumerate(batches):
        local = put(arrays)
        rows = []
        for d in range(draws):
            sub = jax.random.fold_in(jax.random.fold_in(key, i), d)
            total, count = jax.device_get(score(params, local, sub))
            real = np.asarray(count) > 0
            terms = total if isinstance(total, dict) else {"": total}
            each = {name: np.asarray(term, np.float64)[real] for name, term in terms.items()}
            rows.append(sum(each.values()))
            sums.update({name: float(term.sum()) for name, term in each.items() if name})
        nats.append(np.stack(rows, 1))
        tokens.append(np.asarray(count, np.float64)[real])
    all_nats, n = np.concatenate(nats), np.concatenate(tokens)
    mean, se = per_token(all_nats.mean(1), n)
    return Estimate(
        nats=mean + boundary,
        se=se,
        monte_carlo_se=of_draws(all_nats, n),
        tokens=int(n.sum()),
        sequences=len(n),
        draws=draws,
        passes=passes,
        calls=passes * draws,
        exact=exact,
        estimator=estimator,
        prompt=prompt,
        available=available,
        unknown=unknown,
        bound=bound,
        chain=chain,
        terms={name: total / (draws * float(n.sum())) for name, total in sums.items()},
    )
