"""Diversity metrics by hand, and against a plain quadratic BLEU."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.evaluation import quality

rows = lambda *texts: [np.frombuffer(t.encode(), np.uint8) for t in texts]


def test_unigram_entropy():
    found = quality.unigram_entropy(rows("aaaa", "aabb", "abcd", "aaab"))
    three = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    np.testing.assert_allclose(found, [0, math.log(2), math.log(4), three], atol=1e-12)


def test_distinct():
    # unigrams a b a b | a c: 3 of 6; bigrams ab ba ab | ac: 3 of 4; no trigram in the second
    two = rows("abab", "ac")
    assert [quality.distinct(two, n) for n in (1, 2, 3)] == [3 / 6, 3 / 4, 2 / 2]
    assert math.isnan(quality.distinct(two, 5))


def test_repetition():
    # bigrams ab ba ab ba ab: 2 of 5 different; abcdef: all different; mean of 3/5 and 0
    assert quality.repetition(rows("ababab", "abcdef"), 2) == pytest.approx(0.3)
    assert quality.repetition(rows("aaaaaaa")) == pytest.approx(3 / 4)
    assert math.isnan(quality.repetition(rows("abc")))


def test_self_bleu_by_hand():
    # "aab" against "ab": p1 = 2/3 (a clipped to 1), p2 = 1/2 (ab), longer: no penalty.
    # "ab" against "aab": p1 = 1, p2 = 1, penalty exp(1 - 3/2).
    first, second = math.sqrt(2 / 3 * 1 / 2), math.exp(-1 / 2)
    assert quality.self_bleu(rows("aab", "ab"), 2) == pytest.approx((first + second) / 2)
    # Nothing in common: 0.1 match of 2 unigrams and of 1 bigram.
    assert quality.self_bleu(rows("ab", "cd"), 2) == pytest.approx(math.sqrt(0.05 * 0.1))
    assert quality.self_bleu(rows("abcde", "abcde")) == pytest.approx(1)
    with pytest.raises(UserError, match="1 given"):
        quality.self_bleu(rows("abc"))


def plain_bleu(row, others, n):
    """BLEU by its definition: every reference looked at for every gram."""
    log = 0.0
    for k in range(1, n + 1):
        own = collections.Counter(quality.grams(row, k))
        refs = [collections.Counter(quality.grams(o, k)) for o in others]
        match = sum(min(c, max(r[g] for r in refs)) for g, c in own.items())
        log += math.log((match or 0.1) / max(sum(own.values()), 1)) / n
    near = min((len(o) for o in others), key=lambda r: (abs(r - len(row)), r))
    return math.exp(log) * (1 if len(row) >= near else math.exp(1 - near / len(row)))


def test_self_bleu_is_bleu_against_all_others():
    draw = np.random.default_rng(0)
    some = [draw.integers(0, 4, draw.integers(5, 12)) for _ in range(9)]
    own = [plain_bleu(r, some[:i] + some[i + 1 :], 4) for i, r in enumerate(some)]
    assert quality.self_bleu(some) == pytest.approx(np.mean(own), rel=1e-12)


def test_describe_holds_every_field():
    found = quality.describe(rows("abcdabcd", "abababab"))
    assert found["distinct"][0] == 4 / 16 and found["repetition"] == pytest.approx((0.2 + 0.6) / 2)
    expected = (math.log(4) + math.log(2)) / 2
    assert found["entropy"] == pytest.approx(expected)
    assert found["entropy_se"] == pytest.approx(math.log(2) / 2)
    assert quality.describe(rows("abcd"))["self_bleu"] is None
