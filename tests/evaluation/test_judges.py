"""The n-gram judge sums to one, by hand; the network judge is the likelihood; bootstrap."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.evaluation import judges, likelihood
from ldd_jax.evaluation.ngram import NGram
from ldd_jax.objectives import NextToken
from ldd_jax.processes import LeftToRight
from tests.lab import live_params

TEXT = np.random.default_rng(0).choice(4, (30, 12), p=[0.6, 0.2, 0.15, 0.05])


class Letters:
    """a, b, c, d, e = 0..4."""

    size, digest = 5, "letters"

    def encode(self, text):
        return ["abcde".index(c) for c in text]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one_after_every_context(order):
    """Contexts that occurred, that never did, and token 4, which is in no text."""
    model = NGram.fit(TEXT, 5, order)
    assert model.order == order
    for context in itertools.product(range(5), repeat=3):
        p = [model.probabilities(np.array([*context, w])) for w in range(5)]
        assert sum(v[-1] for v in p) == pytest.approx(1, abs=1e-12) and min(v.min() for v in p) > 0
        assert np.ptp([v[:-1] for v in p], axis=0).max() == 0  # earlier ones do not look ahead


def test_bigrams_by_hand():
    """aab, abb: bigrams aa ab | ab bb."""
    model = NGram.fit(np.array([[0, 0, 1], [0, 1, 1]]), 3, 2)
    # Order 2: aa 1, ab 2, bb 1, so d = 2 / (2 + 2). Order 1 counts left neighbours: a after a;
    # b after a and b; n1 = n2 = 1, d = 1 / 3.
    p1 = {0: (1 - 1 / 3) / 3, 1: (2 - 1 / 3) / 3, 2: 0}
    p1 = {w: v + (1 / 3) * 2 / 3 / 3 for w, v in p1.items()}
    after_a = {
        0: (1 - 0.5) / 3 + 0.5 * 2 / 3 * p1[0],
        1: (2 - 0.5) / 3 + 0.5 * 2 / 3 * p1[1],
        2: 0.5 * 2 / 3 * p1[2],
    }
    for w in range(3):
        np.testing.assert_allclose(model.probabilities(np.array([0, w])), [p1[0], after_a[w]])
        np.testing.assert_allclose(model.probabilities(np.array([2, w])), [p1[2], p1[w]])


def test_a_longer_context_helps_where_it_tells():
    cycle = np.tile(np.arange(5), (20, 4))
    nats = [-np.log(NGram.fit(cycle, 5, n).probabilities(cycle[0])).mean() for n in (1, 2, 3)]
    assert nats[0] > 1.5 and nats[1] < 0.3 and nats[2] < 0.3


def test_order_gives_way_to_the_vocabulary_and_the_row():
    assert NGram.fit(np.array([[0, 50_000, 3, 4, 5, 6]]), 50_257, 6).order == 3
    assert NGram.fit(TEXT[:, :2], 5, 6).order == 2
    for wrong in (dict(order=0), dict(size=3)):
        with pytest.raises(UserError):
            NGram.fit(TEXT, **{"size": 5, **wrong})


def test_one_sample_tells_no_error():
    for nats, tokens in (([6.0], [3]), ([6.0, 0.0], [3, 0])):
        found = judges.bootstrap(np.array(nats), np.array(tokens))
        assert found.nats == 2 and found.tokens == 3
        assert np.isnan([found.se, found.low, found.high]).all()
        assert str(found) == (
            "perplexity 7.389, 2.0000 nats a token, 3 tokens of one sample, which tells no error"
        )


def test_bootstrap():
    draw = np.random.default_rng(1)
    tokens = draw.integers(20, 40, 200).astype(float)
    nats = tokens * draw.normal(2, 0.3, 200)
    found = judges.bootstrap(nats, tokens)
    assert found.nats == pytest.approx(nats.sum() / tokens.sum())
    residual = nats - found.nats * tokens
    exact = math.sqrt((residual**2).sum()) / tokens.sum()  # the delta method
    assert found.se == pytest.approx(exact, rel=0.1)
    assert found.low < found.nats < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * exact, rel=0.15)
    with pytest.raises(UserError, match="no token"):
        judges.bootstrap(np.zeros(3), np.zeros(3))


def test_a_judge_is_asked_in_its_own_tokens():
    judge = judges.NGramJudge(NGram.fit(TEXT, 5, 3), Letters(), "corpus")
    by_id = judges.judge_samples(judge, ["", ""], [np.array([0, 1]), np.array([2])], "letters")
    by_text = judges.judge_samples(judge, ["ab", "c"], [np.array([9, 9])], "other")
    assert by_id == by_text and by_id.tokens == 3
    with pytest.raises(UserError, match="masks"):
        judges.judge_samples(judge, [""], [np.array([0, 5])], "letters")


@pytest.mark.slow
def test_the_network_judge_is_the_likelihood():
    """Rows of several lengths, one longer than the network's, against one row at a time."""
    tokens = TokenSpace(size=6, mask=5)
    model = DiT(tokens=tokens, width=16, depth=1, heads=2, latent=False, causal=True, adaln=False)
    params = live_params(model)
    objective = NextToken(process=LeftToRight(tokens=tokens))
    score = jax.jit(likelihood.score_fn(model, objective))
    hidden = jax.jit(lambda p, arrays, key: model.bind(p).trunk(arrays["z0"], Cond()).features)
    judge = judges.NetworkJudge(score, params, Letters(), 4, "net", "f", batch=2, hidden=hidden)
    rows = [np.array(r) for r in ([0, 1, 2, 3], [4, 1], [2, 2, 1, 0, 3, 4], [])]
    nats, counts = judge.nats(rows)
    assert counts.tolist() == [4, 2, 6, 0] and nats[3] == 0

    def alone(row):
        row = jnp.asarray([row])
        ones = jnp.ones(row.shape)
        arrays = dict(z0=row, keep=ones < 0, weight=ones, index=jnp.zeros(1, int))
        return float(score(params, arrays, jax.random.key(3))[0][0])

    expected = [alone(rows[0]), alone(rows[1]), alone(rows[2][:4]) + alone(rows[2][4:])]
    np.testing.assert_allclose(nats[:3], expected, rtol=1e-5)
    of = lambda row: np.asarray(hidden(params, {"z0": jnp.asarray([row])}, None))[0]
    found = judge.features(rows)
    whole = np.concatenate([of(rows[2][:4]), of(rows[2][4:])]).mean(0)
    np.testing.assert_allclose(found[:2], [of(r).mean(0) for r in rows[:2]], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[2], whole, rtol=1e-4, atol=1e-5)
    assert not found[3].any()
