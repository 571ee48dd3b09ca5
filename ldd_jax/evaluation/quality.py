"""What samples are like without asking a model: entropy, diversity, repetition.

Each looks at token ids. None is a quality by itself: a uniform draw has the highest entropy and
diversity, a constant the lowest generated perplexity. They are to be read beside each other.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

import numpy as np

from ldd_jax.core.checks import require

Rows = Sequence[np.ndarray]


def grams(row: np.ndarray, n: int) -> list[tuple[int, ...]]:
    """The n-grams of a row, in order."""
    ids = [int(i) for i in row]
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


def unigram_entropy(rows: Rows) -> np.ndarray:
    """-sum p log p of each row's own token frequencies, nats, [N] (the entropy of SEDD and Duo)."""
    out = []
    for row in rows:
        _, counts = np.unique(np.asarray(row), return_counts=True)
        p = counts / counts.sum()
        out.append(float(-(p * np.log(p)).sum()) + 0.0)
    return np.asarray(out)


def distinct(rows: Rows, n: int) -> float:
    """Different n-grams of all rows / n-grams of all rows (Li et al., arXiv 1510.03055).

    It falls with the number of rows: compare equal numbers only. NaN if no row has n tokens.
    """
    every = [g for row in rows for g in grams(row, n)]
    return len(set(every)) / len(every) if every else math.nan


def repetition(rows: Rows, n: int = 4) -> float:
    """1 - different / all n-grams *within* a row, mean over rows (seq-rep-n, arXiv 1908.04319)."""
    found = [1 - len(set(g)) / len(g) for g in (grams(row, n) for row in rows) if g]
    return float(np.mean(found)) if found else math.nan


def self_bleu(rows: Rows, n: int = 4, epsilon: float = 0.1) -> float:
    """Mean BLEU-n of each row with all others as references (Texygen, arXiv 1802.01886).

    BLEU = brevity penalty * geometric mean of the clipped precisions of orders 1..n; a precision
    without a match counts epsilon / candidates (smoothing method 1 of Chen and Cherry, 2014). High
    = the rows resemble each other. The clip needs only the two largest counts of each gram, so
    the cost is linear in the number of tokens.

    Args:
      rows: ids of each text.
      n: longest grams.
      epsilon: matches that a precision without one counts as.

    Raises:
      UserError: with fewer than two rows.
    """
    require(len(rows) >= 2, f"self-BLEU compares samples with each other; {len(rows)} given")
    logs = np.zeros(len(rows))
    for order in range(1, n + 1):
        counts = [collections.Counter(grams(row, order)) for row in rows]
        best: dict[tuple[int, ...], tuple[int, int]] = {}
        for own in counts:
            for gram, count in own.items():
                high, second = best.get(gram, (0, 0))
                best[gram] = (max(high, count), max(second, min(high, count)))
        for i, own in enumerate(counts):
            # The largest count among the others: the second largest if the largest is our own.
            other = {g: best[g][1] if c == best[g][0] else best[g][0] for g, c in own.items()}
            match = sum(min(c, other[g]) for g, c in own.items())
            total = max(sum(own.values()), 1)
            logs[i] += math.log((match or epsilon) / total) / n
    return float(np.mean([_brevity(rows, i) * math.exp(v) for i, v in enumerate(logs)]))


def _brevity(rows: Rows, i: int) -> float:
    """exp(1 - r / c) for a row shorter than the reference nearest in length."""
    length = len(rows[i])
    others = [len(row) for j, row in enumerate(rows) if j != i]
    nearest = min(others, key=lambda r: (abs(r - length), r))
    return 1.0 if length >= nearest else math.exp(1 - nearest / max(length, 1))


def describe(rows: Rows) -> dict[str, object]:
    """Every metric of this page under its field name; means over rows with standard errors."""
    entropy = unigram_entropy(rows)
    many = len(rows) > 1
    return {
        "entropy": float(entropy.mean()),
        "entropy_se": float(entropy.std(ddof=1)) / math.sqrt(len(rows)) if many else None,
        "distinct": [distinct(rows, n) for n in (1, 2, 3, 4)],
        "self_bleu": self_bleu(rows) if many else None,
        "repetition": repetition(rows),
    }
