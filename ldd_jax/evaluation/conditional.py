"""-log p(target | the rest) of a row: exact where possible, else drawn, with an interval.

Masked diffusion without time: for target positions 1..K and a context that is never masked,

  -log p(y | c) = E_n E_S (K / n) sum_{i in S} -log x_theta(y_i | y_-S, c),

n uniform on 1..K and S a uniform subset of size n (the time integral of the NELBO done by hand; see
also arXiv 2510.24088). It is the likelihood itself for an exact x_theta, and the mean over orders
of the any-order likelihood, a bound, for a network. Where all 2^K - 1 subsets are at most as
many as the draws asked for, they are all taken, each with its weight: no chance is left.

Other diffusions: the NELBO with the context kept clean. Left-to-right models: the likelihood.
With a latent, `passes` network calls on the same masked row, from h = 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Array, Batch, Cond, Model, Process
from ldd_jax.core.vocabulary_tiles import rows
from ldd_jax.objectives.context import iterated
from ldd_jax.objectives.next_token import shifted


class Score(NamedTuple):
    """Nats of a target, the standard error of its draws, and how it came about.

    greedy: whether the most probable token is the target's at every position when all of the target
    is hidden (left to right: given those before); False where it was not asked.
    passes: network passes of each draw. unknown: share of the target's tokens that the tokenizer
    does not know, which are all one symbol. importance: of paths of a sampler, -log of the mean
    of exp(-nats) over them, a bound that is tighter in the mean.
    """

    nats: float
    se: float
    tokens: int
    draws: int
    exact: bool
    greedy: bool
    passes: int = 1
    unknown: float = 0.0
    importance: float | None = None


class Subsets(NamedTuple):
    """Which of K target positions are hidden, [m, K], and the weight of each draw.

    The last row hides all of them; it counts only as far as its weight says.
    """

    hidden: np.ndarray
    weight: np.ndarray
    exact: bool


def subsets(count: int, draws: int, seed: int) -> Subsets:
    """Subsets of the target: all 2^K - 1 if these are at most `draws`, else so many drawn.

    The draws depend on (seed, count) alone, so that options of one length are compared on the same
    subsets, and neither batch nor order changes a score. Sizes are stratified.

    Args:
      count: K, target positions.
      draws: subsets that may be looked at.
      seed: of the draws.
    """
    if count < 31 and 2**count - 1 <= draws:
        codes = np.arange(1, 2**count)
        hidden = (codes[:, None] >> np.arange(count)) & 1 > 0
        n = hidden.sum(1)
        return Subsets(hidden, 1 / np.array([k * math.comb(count, k) for k in n], float), True)
    draw = np.random.Generator(np.random.Philox(key=[seed, count]))
    place = np.mod(draw.random() + np.arange(draws) / draws, 1.0)
    n = 1 + np.minimum((place * count).astype(int), count - 1)
    rank = draw.random((draws, count)).argsort(1).argsort(1)
    hidden = np.concatenate([rank < n[:, None], np.ones((1, count), bool)])
    return Subsets(hidden, np.append(count / n / draws, 0.0), False)


def left_to_right(count: int) -> Subsets:
    """The whole target at once: a causal network reads what came before by itself."""
    return Subsets(np.ones((1, count), bool), np.ones(1), True)


def combine(found: np.ndarray, chosen: Subsets, hit: bool) -> Score:
    """The score from the summed nats of every draw, in the order of `chosen`.

    Stratified draws vary less than the interval says.

    Args:
      found: nats of each draw, as `chosen` has them.
      chosen: which positions were hidden in each draw, and its weight.
      hit: whether the most probable tokens are the target's, with all of it hidden.
    """
    tokens = chosen.hidden.shape[1]
    nats = float((found * chosen.weight).sum())
    drawn = int((chosen.weight > 0).sum())
    se = 0.0
    if not chosen.exact:
        each = (found * chosen.weight)[chosen.weight > 0] * drawn
        se = float(each.std(ddof=1) / math.sqrt(drawn)) if drawn > 1 else math.nan
    return Score(nats, se, tokens, drawn, chosen.exact, hit)


def reveal_fn(model: Model, process: Process, passes: int, *, tile: int = 0, groups: int = 1):
    """(params, z0, hidden, segment) -> -log p summed over `hidden`, and whether all are the mode.

    A left-to-right process reads the row shifted; a masked one with `hidden` positions masked.

    Args:
      model: makes the network of the parameters.
      process: left to right, or masked.
      passes: network passes of a call, the last of which is read.
      tile: rows projected at once; 0 = all, -1 = chosen by rows and vocabulary.
      groups: of rows, one for each device, that are tiled apart.
    """
    causal = process.schedule is None

    def reveal(params: Any, z0: Array, hidden: Array, segment: Array) -> tuple[Array, Array]:
        denoiser = model.bind(params)
        if causal:
            z = shifted(z0, segment, process.start)  # type: ignore[attr-defined]
        else:
            z = process.mask_at(z0, hidden)
        cond = Cond(segment=segment).of_none(model.num_classes, len(z0))
        h = iterated(denoiser, passes - 1, 0)(z, cond, None)
        trunk = denoiser.trunk(z, cond, h)

        def read(logits, args):
            token, noisy = args
            logp = process.read(logits, noisy, jnp.ones(token.shape))
            own = jnp.take_along_axis(logp, token[:, None], -1)[:, 0]
            return own, jnp.argmax(logp, -1) == token

        flat = lambda a: a.reshape(-1, *a.shape[2:])
        nats, best = rows(
            read,
            denoiser.head,
            flat(trunk.features),
            (flat(z0), flat(z)),
            where=flat(hidden),
            tile=tile,
            groups=groups,
            length=z.shape[1],
        )
        shape = lambda a: a.reshape(hidden.shape)
        return -jnp.sum(jnp.where(hidden, shape(nats), 0), -1), jnp.all(shape(best) | ~hidden, -1)

    return reveal


def bound_fn(model: Model, objective: Any, draws: int):
    """(params, seed, z0, hidden, segment, index) -> the NELBO integrand at draw `index`, [B].

    Args:
      model: makes the network of the parameters.
      objective: a NELBO of all t.
      draws: of a text; their times are stratified.
    """

    def bound(
        params: Any, seed: Array, z0: Array, hidden: Array, segment: Array, index: Array
    ) -> Array:
        batch = Batch(
            z0=z0,
            keep=~hidden,
            weight=hidden.astype(jnp.float32),
            cond=Cond(segment=segment),
            index=index,
            total=draws,
            norm=jnp.ones(()),
        )
        return objective(model.bind(params), batch, jax.random.key(seed)).metrics["loss_B"]

    return bound
