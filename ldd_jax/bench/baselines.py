"""Rows that are always there: real text, and two samplers that make nonsense.

A metric on which nonsense does well says nothing about the samplers that do well on it too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ldd_jax.core.checks import require
from ldd_jax.data import Corpus

PHRASE = 8  # tokens that `frequent` repeats, drawn from as many most frequent ones


def data(corpus: Corpus, counts: np.ndarray, count: int, length: int, seed: int) -> np.ndarray:
    """Validation rows, [count, <= length]: what a perfect sampler would give.

    Args:
      corpus: its validation rows are taken.
      counts: of the training tokens, [V]; not read here.
      count: rows.
      length: tokens of a row, at most.
      seed: of the choice.
    """
    rows = corpus.rows("validation")
    return np.stack([rows[int(i)]["tokens"][:length] for i in _picked(len(rows), count, seed)])


def _picked(rows: int, count: int, seed: int) -> np.ndarray:
    """Which validation rows stand for the data."""
    return np.random.default_rng(seed).choice(rows, count, replace=rows < count)


def references(corpus: Corpus, count: int, length: int, seed: int) -> np.ndarray:
    """Validation rows that `data` leaves: what sets of texts are compared to.

    Args:
      corpus: its validation rows are taken.
      count: rows, at most.
      length: tokens of a row, at most.
      seed: of the choice that `data` makes.

    Raises:
      UserError: where fewer than two are left.
    """
    rows = corpus.rows("validation")
    left = np.setdiff1d(np.arange(len(rows)), _picked(len(rows), count, seed))
    pick = np.random.default_rng((seed, 1)).permutation(left)[:count]
    require(
        len(pick) >= 2,
        f"--mauve compares with validation rows that `data` does not show; of {len(rows)} rows "
        f"{len(pick)} are left beside {count}: take fewer samples",
    )
    return np.stack([rows[int(i)]["tokens"][:length] for i in pick])


def unigram(corpus: Corpus, counts: np.ndarray, count: int, length: int, seed: int) -> np.ndarray:
    """Every token by itself from the training frequencies.

    `corpus`, `counts`, `count`, `length` and `seed` are those of `data`; `seed` is that of the
    draw.
    """
    draw = np.random.default_rng(seed)
    return draw.choice(len(counts), (count, length), p=counts / counts.sum())


def frequent(corpus: Corpus, counts: np.ndarray, count: int, length: int, seed: int) -> np.ndarray:
    """A phrase drawn from the most frequent tokens, repeated to the end of the row.

    `corpus`, `counts`, `count`, `length` and `seed` are those of `data`; `seed` is that of the
    draw.
    """
    top = np.argsort(-counts, kind="stable")[:PHRASE]
    draw = np.random.default_rng(seed)
    phrase = draw.choice(top, (count, PHRASE), p=counts[top] / counts[top].sum())
    return np.tile(phrase, (1, -(-length // PHRASE)))[:, :length]


BASELINES: dict[str, Callable[[Corpus, np.ndarray, int, int, int], np.ndarray]] = {
    "data": data,
    "unigram": unigram,
    "frequent": frequent,
}


def place(name: str) -> int:
    """Where a baseline stands among all; one that this version does not know stands behind."""
    known = list(BASELINES)
    return known.index(name) if name in known else len(known)


# Those whose samples are documents of the corpus, which may be private.
QUOTES = {"data"}


def training_tokens(corpus: Corpus, limit: int = 20_000_000) -> np.ndarray:
    """Training rows [N, L], at most about `limit` tokens, evenly spread."""
    rows = corpus.rows("train")
    length = len(rows[0]["tokens"])
    some = np.linspace(0, len(rows) - 1, min(len(rows), max(limit // length, 1))).astype(int)
    return np.stack([rows[int(i)]["tokens"] for i in np.unique(some)])
