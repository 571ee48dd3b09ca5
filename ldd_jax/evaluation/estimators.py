"""Other estimators of the masked likelihood bound: the number of masks is drawn, not the time.

With M positions to predict (a prompt is kept and not predicted), H_M = sum_{n <= M} 1/n, and a
uniform subset of n of them masked, all have the same expectation, the NELBO, whatever the network:

  k_form     n uniform in 1 .. M, weight M / n          (any-order autoregression; RADD, 2406.03736)
  time_free  n with probability 1 / (n H_M), weight H_M (information-theoretic, 2510.24088)
  lambda     every position masked with probability l, l uniform, weight 1 / l   (I-MDCE, ibid.)

Of a model by blocks M is that of each block, whose masks are drawn by themselves.

They differ in variance. `nelbo` is the integral in t of the model's own process and schedule: for a
free score the I-MDSE. With exact conditionals each is exactly -log p(x), or, with a prompt,
-log p(response | prompt).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.draws import example_keys, ranks, uniforms
from ldd_jax.core.types import Array, Batch, Denoiser, Loss
from ldd_jax.objectives import Nelbo
from ldd_jax.objectives.block_nelbo import in_blocks
from ldd_jax.objectives.strata import stratified
from ldd_jax.objectives.times import CrossEntropy
from ldd_jax.objectives.windows import CORRUPT, DROPOUT, GATE, TIMES

NELBO = "nelbo"


def k_form(total: Array, n: Array) -> tuple[Array, Array]:
    """Cumulative probability of at most n masks of `total`, and the weight of n."""
    return n / total, total / jnp.maximum(n, 1)


def time_free(total: Array, n: Array) -> tuple[Array, Array]:
    """The same with probability 1 / (n H)."""
    table = jnp.concatenate([jnp.zeros(1), jnp.cumsum(1 / jnp.arange(1.0, n.shape[-1]))])
    whole = table[total.astype(jnp.int32)]
    return table[n.astype(jnp.int32)] / whole, jnp.broadcast_to(whole, n.shape)


def by_count(law: Callable) -> Callable:
    """A corruption that draws a number of masks from `law` and then a subset of that size."""

    def corrupt(u_B: Array, u_BL: Array, open_BL: Array) -> tuple[Array, Array, Array]:
        total = jnp.maximum(jnp.sum(open_BL, 1, keepdims=True), 1).astype(u_B.dtype)
        n = jnp.broadcast_to(jnp.arange(open_BL.shape[1] + 1.0), (len(u_B), open_BL.shape[1] + 1))
        below, weight = law(total, jnp.minimum(n, total))
        # The least n whose cumulative probability exceeds u.
        count = jnp.sum((below <= u_B[:, None]) & (n < total), axis=1)
        hidden = ranks(jnp.where(open_BL, u_BL, jnp.inf)) < count[:, None]
        at = jnp.take_along_axis(weight, count[:, None], 1)[:, 0]
        return hidden & open_BL, count / total[:, 0], at

    return corrupt


def by_level(u_B: Array, u_BL: Array, open_BL: Array) -> tuple[Array, Array, Array]:
    """Each position masked with probability l = 1 - u, weight 1 / l.

    Args:
      u_B: u, uniform in [0, 1).
      u_BL: uniforms that decide each position.
      open_BL: positions that may be masked.

    Returns:
      Masked positions [B, L], their expected share [B], the weight [B].
    """
    level = 1 - u_B
    return (u_BL < level[:, None]) & open_BL, level, 1 / level


ESTIMATORS = {"k_form": by_count(k_form), "time_free": by_count(time_free), "lambda": by_level}


@dataclasses.dataclass(frozen=True)
class MaskCount:
    """An objective for evaluation: `base` with another way to hide tokens.

    A network that is told the time is told the one at which as many are expected to be masked.
    """

    base: Nelbo
    corrupt: Callable

    exact = False
    chain = ""

    @property
    def bounds(self) -> bool:
        """As what it is drawn for."""
        return self.base.bounds

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """One draw of every example; see `Nelbo`."""
        process = self.base.process
        site = lambda i: jax.random.fold_in(key, i)
        own = lambda i: example_keys(site(i), batch.index)
        u_B = stratified(site(TIMES), batch.index, batch.total)
        u_BL = uniforms(own(CORRUPT), batch.z0.shape[1:])
        hidden, share, factor = self.masks(batch, u_B, u_BL)
        z = process.mask_at(batch.z0, hidden)
        most = process.schedule.noise(jnp.ones((), share.dtype))
        clock = process.elapsed(share * most)  # all are masked at t = 1, as in the sampler
        return self.base.score(denoiser, batch, z, clock, factor, site(GATE), own(DROPOUT))

    def masks(self, batch: Batch, u_B: Array, u_BL: Array) -> tuple[Array, Array, Array]:
        """What is hidden [B, L], its expected share and its weight, [B]; of blocks all [B, L].

        Args:
          batch: what it keeps is not hidden.
          u_B: a stratified uniform for each example.
          u_BL: uniforms that decide each position.
        """
        if not self.base.by_block:
            return self.corrupt(u_B, u_BL, ~batch.keep)
        rows, length = u_BL.shape
        size = self.base.block  # type: ignore[attr-defined]  # of an objective by blocks
        count = -(-length // size)
        cut = lambda a: jnp.pad(a, ((0, 0), (0, count * size - length))).reshape(-1, size)
        u = in_blocks(u_B, count, batch.total).reshape(-1)
        hidden, *each = self.corrupt(u, cut(u_BL), cut(~batch.keep))
        of_rows = lambda a: a.reshape(rows, -1)[:, :length]
        share, factor = (of_rows(jnp.repeat(a, size)) for a in each)
        return of_rows(hidden), share, factor


def objective(bound: Any, name: str) -> Any:
    """The estimator called `name` of an objective that `as_bound` has made.

    Raises:
      UserError: for an unknown name, or a process that masks nothing.
    """
    if name == NELBO:
        return bound
    if name not in ESTIMATORS:
        raise UserError(f"unknown estimator {name!r}; {nearest(name, [NELBO, *ESTIMATORS])}")
    require(
        not bound.exact and bound.process.absorbing and not bound.by_patch,
        f"estimator {name} counts masks of tokens; this model has none (use {NELBO})",
    )
    base = dataclasses.replace(bound, times=CrossEntropy())
    return MaskCount(base, ESTIMATORS[name])


class RowEstimates(NamedTuple):
    """Of every row: nats, Monte-Carlo standard error (NaN with one draw), tokens predicted."""

    nats: np.ndarray
    se: np.ndarray
    tokens: np.ndarray


Pair = tuple[Sequence[int], Sequence[int]]


def arrays_of(pairs: Sequence[Pair], size: int, length: int) -> dict[str, np.ndarray]:
    """A batch of `size` rows: prompts kept, responses scored, the rest padding.

    Args:
      pairs: ids of prompt and response.
      size: rows; those without a pair are padding.
      length: tokens of a row.

    Raises:
      UserError: for a pair that is longer.
    """
    z0 = np.zeros((size, length), np.int32)
    segment = np.zeros((size, length), np.int32)
    scored = np.zeros((size, length), bool)
    for b, (prompt, response) in enumerate(pairs):
        whole = [*prompt, *response]
        require(
            len(whole) <= length, f"prompt and response have {len(whole)} tokens; room for {length}"
        )
        z0[b, : len(whole)], segment[b, : len(whole)] = whole, 1
        scored[b, len(prompt) : len(whole)] = True
    return {
        "z0": z0,
        "keep": ~scored,
        "weight": scored.astype(np.float32),
        "segment": segment,
        "index": np.arange(size, dtype=np.int32),
    }


def conditional(
    score: Callable,
    params: Any,
    pairs: Sequence[Pair],
    *,
    key: Array,
    draws: int = 1,
    batch: int = 64,
    length: int,
    boundary: float = 0.0,
    put: Callable = lambda arrays: arrays,
) -> RowEstimates:
    """-log p(response | prompt) of every pair, or its bound, in nats.

    The draws of a row stand beside each other in a batch, so that their levels are stratified. Rows
    and draws are dealt out the same way for every list of pairs: two lists scored with one key are
    coupled, pair by pair (`log_ratio`).

    Args:
      score: `likelihood.score_fn` of an objective or an estimator, jitted.
      params: of the model.
      pairs: (prompt ids, response ids); an empty prompt gives the likelihood of the response.
      key: randomness.
      draws: network calls a row.
      batch: rows of a call.
      length: tokens that rows are padded to.
      boundary: prior term of the process, nats per token.
      put: places a batch.
    """
    require(draws >= 1, f"draws is {draws}; it must be at least 1")
    jobs = [(i, d) for i in range(len(pairs)) for d in range(draws)]
    found = np.zeros((len(pairs), draws))
    for chunk, first in enumerate(range(0, len(jobs), batch)):
        some = jobs[first : first + batch]
        arrays = arrays_of([pairs[i] for i, _ in some], batch, length)
        nats, _ = jax.device_get(score(params, put(arrays), jax.random.fold_in(key, chunk)))
        for (i, d), value in zip(some, nats):
            found[i, d] = value
    tokens = np.asarray([len(response) for _, response in pairs], np.float64)
    spread = found.std(1, ddof=1) / math.sqrt(draws) if draws > 1 else np.full(len(pairs), np.nan)
    return RowEstimates(found.mean(1) + boundary * tokens, spread, tokens)


def log_ratio(
    score: Callable, params: Any, pairs: Sequence[Pair], others: Sequence[Pair], **settings: Any
) -> RowEstimates:
    """Log p(other) - log p(pair), pair by pair, with the same places masked on both sides.

    What is common to both cancels draw by draw, so that the error is much below that of two
    separate estimates. Prompts and responses of a pair must have the same lengths.

    Args:
      score: program of one draw, as `conditional` takes it.
      params: parameters.
      pairs: ids of prompt and response.
      others: as many, of the same lengths.
      settings: further ones of `conditional`, and `draws` of each pair.

    Raises:
      UserError: for lengths that differ.
    """
    same = lambda a, b: [len(x) for x in a] == [len(x) for x in b]
    bad = [i for i, (a, b) in enumerate(zip(pairs, others, strict=True)) if not same(a, b)]
    require(not bad, f"pair {bad[0] if bad else 0}: a coupled ratio needs equal lengths")
    draws = settings.pop("draws", 1)
    spread = lambda some: [p for p in some for _ in range(draws)]
    here, there = (conditional(score, params, spread(s), **settings) for s in (pairs, others))
    gaps = (here.nats - there.nats).reshape(-1, draws)
    error = gaps.std(1, ddof=1) / math.sqrt(draws) if draws > 1 else np.full(len(gaps), np.nan)
    return RowEstimates(gaps.mean(1), error, here.tokens[::draws])
