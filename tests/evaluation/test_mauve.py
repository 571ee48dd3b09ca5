"""The frontier's area against direct integration; clusters of known laws; features of judges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import beta

from ldd_jax.core.checks import UserError
from ldd_jax.evaluation import mauve
from ldd_jax.evaluation.judges import hashed_grams

P, Q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.3, 0.1, 0.4])


def integrated(p, q, c):
    """The area of the continuous frontier, written with plain sums and a numerical derivative."""
    kl = lambda a, b: sum(x * math.log(x / y) for x, y in zip(a, b) if x > 0)
    mix = lambda w: [w * a + (1 - w) * b for a, b in zip(p, q)]
    x, y = lambda w: math.exp(-c * kl(q, mix(w))), lambda w: math.exp(-c * kl(p, mix(w)))
    slope = lambda w, d=1e-6: (x(w + d) - x(w - d)) / (2 * d)
    return quad(lambda w: -y(w) * slope(w), 2e-6, 1 - 2e-6, limit=200)[0] + y(0.999999) * x(
        1 - 2e-6
    )


@pytest.mark.parametrize("c", [1.0, 5.0])
def test_a_small_law(c, monkeypatch):
    fine = integrated(P, Q, c)
    assert 0.05 < fine < 0.95
    assert mauve.frontier_area(P, Q, c) == pytest.approx(fine, abs=0.01)  # 25 points
    assert mauve.frontier_area(Q, P, c) == pytest.approx(mauve.frontier_area(P, Q, c), abs=1e-12)
    monkeypatch.setattr(mauve, "POINTS", 4001)
    assert mauve.frontier_area(P, Q, c) == pytest.approx(fine, abs=1e-4)


def test_equal_and_disjoint_laws():
    assert mauve.frontier_area(P, P) == pytest.approx(1, abs=1e-12)
    apart = mauve.frontier_area(np.array([0.5, 0.5, 0]), np.array([0, 0, 1.0]))
    assert apart == pytest.approx(5 * beta(5, 6), abs=5e-4) and apart < 0.005


def cloud(counts, seed=0):
    """Points about corners of a simplex, so many at each."""
    corner = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(size=(len(corner), len(counts)))
    return np.eye(len(counts))[corner] + 1e-3 * noise


def test_clusters_of_a_known_law():
    """40 texts a side give four clusters, which are the corners."""
    found = mauve.mauve(cloud([20, 12, 8, 0]), cloud([8, 12, 4, 16], seed=1))
    assert (found.clusters, found.texts, found.references) == (4, 40, 40)
    assert found.value == pytest.approx(mauve.frontier_area(P, Q), abs=1e-12)
    # The spread of the area when multinomial counts of 40 are drawn from both laws.
    draw = np.random.default_rng(2)
    areas = [
        mauve.frontier_area(draw.multinomial(40, P) / 40, draw.multinomial(40, Q) / 40)
        for _ in range(2000)
    ]
    assert found.se == pytest.approx(np.std(areas), rel=0.15)


def test_equal_and_disjoint_sets():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(60, 5))
    same = mauve.mauve(rows, rows[::-1])
    assert same.value == pytest.approx(1, abs=1e-12) and same.clusters == 6
    far = mauve.mauve(cloud([30, 30, 0, 0]), cloud([0, 0, 30, 30]))
    assert far.value == pytest.approx(5 * beta(5, 6), abs=5e-4)
    again = mauve.mauve(rows[:30], rows[30:])
    assert again == mauve.mauve(rows[:30], rows[30:])  # seeds are fixed
    assert 0.05 < again.value < 1 and again.se > 0.01
    with pytest.raises(UserError, match="1 samples and 60 references"):
        mauve.mauve(rows[:1], rows)


def test_principal_axes_keep_the_spread():
    draw = np.random.default_rng(1)
    rows = np.concatenate([10 + draw.normal(size=(50, 1)), draw.normal(size=(50, 3))], axis=1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = mauve.reduced(rows)
    share = np.square(found).sum() / np.square(unit - unit.mean(0)).sum()
    assert found.shape[1] == 3 and 0.9 <= share < 1
    np.testing.assert_allclose(mauve.reduced(5 * rows), found, atol=1e-12)


def test_hashed_grams():
    first, other = hashed_grams(np.array([0, 1, 0, 1])), hashed_grams(np.array([1, 0, 0, 1]))
    # a b a b: two unigrams of share 1/2, bigrams 2/3 and 1/3, two trigrams of 1/2.
    shares = np.sort(np.square(first[first > 0]))
    np.testing.assert_allclose(shares, [1 / 3, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 2 / 3])
    assert np.abs(first - other).max() > 0.5  # the same letters in another order
    assert not hashed_grams(np.array([], int)).any()
