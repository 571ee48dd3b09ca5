"""The estimator on numbers whose answer is known, and on models whose bound is known."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.config.sections import Evaluation
from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, Spread
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.packing import Layout, Packer, collect
from ldd_jax.evaluation import likelihood
from ldd_jax.inference import evaluate
from tests.cli.tools import METHODS
from tests.lab import first_params
from tests.training.common import BATCH, LENGTH, experiment, stream


def estimate(nats, tokens, *, size=10, draws=1, boundary=0.0, spread=0.0):
    """Estimate from nats [N, draws] and tokens [N], in batches padded with rows of no token."""
    n = len(tokens)
    calls = iter(range(10**9))

    def batches():
        for at in range(0, n, size):
            rows = np.arange(at, min(at + size, n))
            yield {"rows": np.concatenate([rows, np.full(size - len(rows), -1)])}

    def score(params, arrays, key):
        d = next(calls) % draws
        rows = arrays["rows"]
        real = rows >= 0
        # Padding answers nonsense, which must not count.
        return np.where(real, nats[rows, d], 1e6), np.where(real, tokens[rows], 0)

    return likelihood.estimate(
        score,
        None,
        batches(),
        key=jax.random.key(0),
        passes=2,
        draws=draws,
        boundary=boundary,
        put=lambda a: a,
    )


def numbers(seed, n, draws=1):
    draw = np.random.default_rng(seed)
    tokens = draw.integers(5, 40, n)
    each = draw.normal(2.0, 0.3, (n, 1)) + draw.normal(0, 0.2, (n, draws))
    return each * tokens[:, None], tokens


def test_rows_without_a_scored_token_have_no_bound():
    with pytest.raises(UserError, match="nothing is left to be scored"):
        estimate(np.zeros((4, 1)), np.zeros(4))


def test_mean_and_boundary_are_per_token():
    nats, tokens = numbers(0, 37, 3)
    found = estimate(nats, tokens, draws=3, boundary=0.25)
    assert found.nats == pytest.approx(nats.mean(1).sum() / tokens.sum() + 0.25, rel=1e-12)
    assert (found.sequences, found.tokens) == (37, tokens.sum())
    assert (found.draws, found.passes, found.calls) == (3, 2, 6)
    assert estimate(nats, tokens, draws=3).nats == pytest.approx(found.nats - 0.25, rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 37, 50])
def test_padding_adds_nothing(size):
    nats, tokens = numbers(1, 37)
    one, other = estimate(nats, tokens, size=size), estimate(nats, tokens, size=37)
    assert (one.nats, one.se, one.tokens) == (other.nats, other.se, other.tokens)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_standard_error_of_few_sequences(n):
    """Tokens all equal: s / sqrt(n) with n - 1 degrees of freedom, per token."""
    nats = np.random.default_rng(n).normal(2.0, 0.3, (n, 1))
    wanted = nats.std(ddof=1) / math.sqrt(n)
    assert estimate(nats, np.ones(n)).se == pytest.approx(wanted, rel=1e-12)
    assert estimate(5 * nats, np.full(n, 5.0)).se == pytest.approx(wanted, rel=1e-12)


def test_one_sequence_has_no_standard_error():
    assert math.isnan(estimate(np.ones((1, 1)), np.ones(1)).se)


def test_standard_error_of_unequal_sequences_is_that_of_a_ratio():
    """Cochran, Sampling techniques, eq. 2.46: residuals of the ratio, n - 1 degrees of freedom."""
    nats, tokens = np.array([[2.0], [9.0], [4.0]]), np.array([1.0, 3.0, 2.0])
    residual = np.array([2 - 2.5, 9 - 7.5, 4 - 5.0])
    wanted = math.sqrt((residual**2).sum() / 2 / 3) / 2  # mean tokens: 2
    assert estimate(nats, tokens).se == pytest.approx(wanted, rel=1e-12)


def test_standard_error_is_that_of_a_bootstrap():
    nats, tokens = numbers(2, 400)
    draw = np.random.default_rng(3)
    rows = draw.integers(0, 400, (4000, 400))
    means = nats[rows, 0].sum(1) / tokens[rows].sum(1)
    assert estimate(nats, tokens).se == pytest.approx(means.std(), rel=0.06)


def test_standard_error_covers_the_truth():
    """Of 400 fresh data sets, about 68 % are within one standard error of the true mean."""
    inside = 0
    for seed in range(400):
        nats, tokens = numbers(1000 + seed, 80)
        found = estimate(nats, tokens, size=80)
        inside += abs(found.nats - 2.0) < found.se
    assert 0.60 < inside / 400 < 0.76


def test_monte_carlo_error_is_that_of_the_draws_alone():
    """Redrawing times for the same sequences spreads the mean by this much."""
    draw = np.random.default_rng(4)
    tokens = draw.integers(5, 40, 50)
    own = draw.normal(2.0, 3.0, (50, 1))  # sequences differ a lot, which must not count
    fresh = lambda d: (own + draw.normal(0, 0.4, (50, d))) * tokens[:, None]
    again = [estimate(fresh(4), tokens, draws=4, size=50) for _ in range(400)]
    stated, spread = np.mean([e.monte_carlo_se for e in again]), np.std([e.nats for e in again])
    assert stated == pytest.approx(spread, rel=0.12)
    assert math.isnan(estimate(fresh(1), tokens).monte_carlo_se)


def test_record_holds_perplexity_and_bits():
    nats, tokens = numbers(5, 20)
    found = estimate(nats, tokens)
    record = found.record()
    assert record["nelbo_ppl"] == pytest.approx(math.exp(found.nats))
    assert record["nelbo_ppl_se"] == pytest.approx(math.exp(found.nats) * found.se)
    assert record["bits_per_token"] == pytest.approx(found.nats / math.log(2))
    assert record["bounds"] == "the sampler that runs two passes per step, starting from h = 0"
    assert "h = 0" in likelihood.bounds(1) and "5 passes" in likelihood.bounds(5)


def corpus(count, length=LENGTH):
    """Rows of letters, the last batch not full."""
    draw = np.random.default_rng(0)
    tokenizer = Bytes().fit(list, needs=("eos",))
    rows = ["".join(chr(c) for c in draw.integers(0, 11, length)) for _ in range(count)]
    held = collect(Packer(Layout(length=length, eos=False), tokenizer), rows)
    return Corpus(
        tokenizer=tokenizer,
        train=held,
        validation=held,
        layout=Layout(length=length, eos=False),
        fingerprint="",
        source="",
        note="",
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_untrained_model_knows_nothing(method):
    """The head starts at zero: log(number of symbols) a token, up to the draws of t.

    Masked: the mask is no symbol. Uniform: x_theta is uniform too, so the bound is the divergence
    of the data from it, log V, the boundary term included.
    """
    built = experiment(method, evaluation__batch_size=16)
    params = first_params(built.model, built.key(0))
    symbols = built.tokens.size - (built.tokens.mask is not None)
    for passes in (1, 2) if method.startswith("lddm") else (1,):
        found = evaluate.evaluate_split(built, corpus(101), params, passes=passes, draws=40)
        assert found.sequences == 101 and found.tokens == 101 * LENGTH
        assert abs(found.nats - math.log(symbols)) < 4 * max(found.se, found.monte_carlo_se)
        assert found.se < 0.1
        assert found.calls == 40 * passes


@pytest.mark.slow
def test_a_full_and_a_padded_last_batch_agree():
    """The same sequences in batches of 8 and of 7: only the times differ."""
    found = []
    for size in (8, 7):
        built = experiment("mdlm", evaluation__batch_size=size)
        params = first_params(built.model, built.key(0))
        found.append(evaluate.evaluate_split(built, corpus(40), params, draws=60))
    assert found[0].tokens == found[1].tokens == 40 * LENGTH
    assert abs(found[0].nats - found[1].nats) < 4 * found[0].monte_carlo_se


@pytest.mark.slow
def test_evaluation_is_repeatable_and_limited():
    built = experiment("udlm", evaluation__batch_size=8, evaluation__max_sequences=20)
    params = first_params(built.model, built.key(0))
    one, two = (evaluate.evaluate_split(built, corpus(40), params, draws=2) for _ in range(2))
    assert one == two and one.sequences == 20 and "20 of 40 sequences" in str(one)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 8, 64])
def test_just_so_many_sequences_are_scored_at_every_batch_size(size):
    """The same ones, spread over the split; the program's progress is told batch by batch."""
    built = experiment("mdlm", evaluation__batch_size=size, evaluation__max_sequences=10)
    params, told = first_params(built.model, built.key(0)), []
    report = lambda *at: told.append(at)
    found = evaluate.evaluate_split(built, corpus(43), params, draws=1, report=report)
    assert found.sequences == 10 and found.tokens == 10 * LENGTH and found.available == 43
    batches = -(-10 // size)
    assert told == [(i + 1, batches) for i in range(batches)]
    assert evaluate.evaluate_split(built, corpus(43), params, draws=1, sequences=0).sequences == 43
    assert evaluate.evaluate_split(built, corpus(43), params, draws=1, sequences=99).sequences == 43


def test_spread_rows():
    spread = lambda most: [Spread(range(10), most)[i] for i in range(len(Spread(range(10), most)))]
    assert spread(0) == spread(10) == spread(11) == list(range(10))
    assert spread(3) == [0, 3, 6] and spread(1) == [0]


def test_periodic_validation_has_a_cap_of_its_own():
    periodic = lambda **fields: Evaluation(**fields).periodic
    assert periodic() == 1024 and periodic(periodic_sequences=0) == 0
    assert periodic(max_sequences=10) == 10 and periodic(max_sequences=5000) == 1024
    assert periodic(max_sequences=10, periodic_sequences=0) == 10


@pytest.mark.parametrize("method", METHODS)
def test_score_is_per_sequence_and_ignores_padding(method):
    built = experiment(method)
    objective = built.objective.as_bound(1)
    assert objective.times.eps == 0 and not objective.dropout
    score = jax.jit(likelihood.score_fn(built.model, objective))
    params = first_params(built.model, built.key(0))
    arrays = next(stream(1))
    total, count = score(params, arrays, jax.random.key(1))
    assert total.shape == count.shape == (BATCH,)
    np.testing.assert_array_equal(count, (~arrays["keep"]).sum(1))
    none = {
        **arrays,
        "weight": np.zeros_like(arrays["weight"]),
        "keep": np.ones((BATCH, LENGTH), bool),
    }
    total, count = score(params, none, jax.random.key(1))
    assert not jnp.any(total) and not jnp.any(count)


@pytest.mark.parametrize("nats, side", [(1.5, "25.0 % below"), (2.762, "38.1 % above")])
def test_a_bound_beside_the_unigram_entropy(nats, side):
    found = likelihood.Estimate(nats, math.nan, math.nan, 8, 1, 1, 1, 1)
    text = found.beside(2.0)
    assert side in text and "+-" not in text and f"{nats:.4f} nats/token is" in text
    assert "+-" not in str(found)


def test_one_sequence_tells_no_error():
    score = lambda params, local, key: (np.array([3.0]), np.array([2.0]))
    how = dict(key=jax.random.key(0), passes=1, draws=2, boundary=0.0, put=lambda a: a)
    found = likelihood.estimate(score, None, [{}], **how)
    assert found.nats == 1.5 and math.isnan(found.se) and found.monte_carlo_se == 0
