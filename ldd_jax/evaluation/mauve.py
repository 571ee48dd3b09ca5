"""MAUVE-style distance of two sets of texts: area under the divergence frontier of their clusters.

arXiv 2102.01454. Features come from the judge at hand, not from GPT-2 large, so that a value means
something only beside others of the same judge, reference and numbers of texts.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2

from ldd_jax.core.checks import require

SCALE = 5.0  # c of the paper
POINTS = 25  # mixtures on the frontier
SEEDS = 5  # clusterings that are averaged
STARTS = 5  # of a clustering; the tightest counts
VARIANCE = 0.9  # share kept by the principal components
REDRAWS = 200


class Mauve(NamedTuple):
    """Mean over clusterings, its error, and what it was made of."""

    value: float
    se: float
    clusters: int
    texts: int
    references: int

    def record(self) -> dict[str, Any]:
        """JSON fields."""
        return {
            "mauve": self.value,
            "mauve_se": self.se,
            "mauve_clusters": self.clusters,
            "mauve_references": self.references,
        }

    def __str__(self) -> str:
        return (
            f"MAUVE-style {self.value:.4f} +- {self.se:.4f} ({self.texts} samples, "
            f"{self.references} references, {self.clusters} clusters, {SEEDS} clusterings)"
        )


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats over the last axis, of laws with q > 0 wherever p > 0."""
    safe = np.where(p > 0, p, 1)
    return np.sum(np.where(p > 0, p * np.log(safe / np.where(p > 0, q, 1)), 0), -1)


def frontier_area(p: np.ndarray, q: np.ndarray, scale: float = SCALE) -> float:
    """Area under {(exp(-c KL(q || r)), exp(-c KL(p || r)))}, r = w p + (1 - w) q, 0 < w < 1.

    By the trapezoid rule over `POINTS` mixtures and the ends (1, 0), (0, 1). It is 1 for p = q, and
    c B(c, c + 1) = 0.004 at c = 5 for laws without a common outcome.

    Args:
      p: law, [K].
      q: law, [K].
      scale: c.
    """
    w = np.linspace(1e-6, 1 - 1e-6, POINTS)[:, None]
    r = w * p + (1 - w) * q
    x, y = np.exp(-scale * divergence(q, r)), np.exp(-scale * divergence(p, r))
    # As w grows r goes from q to p: x falls from 1, y rises to 1.
    x, y = np.append(np.insert(x, 0, 1.0), 0.0), np.append(np.insert(y, 0, 0.0), 1.0)
    return float(np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:]) / 2))


def reduced(features: np.ndarray) -> np.ndarray:
    """Rows of length one on the principal axes that hold `VARIANCE` of their spread."""
    x = np.asarray(features, np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = x - x.mean(0)
    _, size, axes = np.linalg.svd(x, full_matrices=False)
    share = np.cumsum(size**2) / max(float((size**2).sum()), 1e-300)
    kept = int(np.searchsorted(share, VARIANCE)) + 1
    return x @ axes[:kept].T


def clusters(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cluster of every point, [N]: the tightest of several k-means++ starts.

    Args:
      points: [N, D].
      count: clusters.
      seed: of the starts.
    """
    best, labels = math.inf, np.zeros(len(points), int)
    draw = np.random.default_rng(seed)
    for _ in range(STARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster takes no part, and is no harm
            centres, found = kmeans2(points, count, iter=100, minit="++", rng=draw)
        spread = float(np.square(points - centres[found]).sum())
        if spread < best:
            best, labels = spread, found
    return labels


def mauve(samples: np.ndarray, references: np.ndarray) -> Mauve:
    """The area for two sets of features, clustered together.

    Mean over `SEEDS` clusterings into max(2, n / 10) clusters, n the smaller set, at most 500. The
    error adds to that of the mean over clusterings the spread when texts of both sets are drawn
    again with replacement and keep their clusters. Few texts bias the value downwards: compare
    equal numbers.

    Args:
      samples: [N, F].
      references: [M, F].

    Raises:
      UserError: with fewer than two texts on a side.
    """
    n, m = len(samples), len(references)
    require(min(n, m) >= 2, f"MAUVE compares sets of texts; {n} samples and {m} references given")
    count = min(max(2, round(min(n, m) / 10)), 500)
    points = reduced(np.concatenate([samples, references]))
    law = lambda labels: np.bincount(labels, minlength=count) / len(labels)
    values, spreads = [], []
    for seed in range(SEEDS):
        labels, draw = clusters(points, count, seed), np.random.default_rng(seed)
        own, other = labels[:n], labels[n:]
        values.append(frontier_area(law(own), law(other)))
        again = lambda part, draw=draw: part[draw.integers(0, len(part), len(part))]
        areas = [frontier_area(law(again(own)), law(again(other))) for _ in range(REDRAWS)]
        spreads.append(np.var(areas, ddof=1))
    error = math.sqrt(float(np.var(values, ddof=1)) / SEEDS + float(np.mean(spreads)))
    return Mauve(float(np.mean(values)), error, count, n, m)
