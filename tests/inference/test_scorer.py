"""Conditional likelihoods of trained runs as laws: they sum to one, and multiply."""

import dataclasses

import numpy as np
import pytest

from ldd_jax.inference import pipeline
from ldd_jax.inference.scorer import Item, Scorer


def scores(trained, method, items, **options):
    pipe = pipeline.load(trained(method))
    options = dict(draws=options.pop("draws", 8)) | options
    return pipe, Scorer(pipe.experiment, pipe.params, **options)(items(pipe))[0]


def every_next(pipe, context="the old"):
    ids = tuple(pipe.tokenizer.encode(context))
    return [Item((*ids, c), 1) for c in range(pipe.tokenizer.size)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ar", "mdlm", "lddm_m"])
def test_probabilities_of_the_next_token_sum_to_one(trained, method):
    """A law of one token: exact from left to right, and for one mask after a clean context."""
    _, found = scores(trained, method, every_next)
    assert all(s.exact for s in found)
    p = np.exp([-s.nats for s in found])
    assert abs(p.sum() - 1) < 1e-5
    assert p.max() > 1.2 * p.mean()  # it has learned something


@pytest.mark.slow
def test_left_to_right_multiplies(trained):
    """Log p(ab | c) = log p(a | c) + log p(b | ca), token by token."""

    def items(pipe):
        ids = tuple(pipe.tokenizer.encode("the river bank"))
        return [Item(ids, 7)] + [Item(ids[: len(ids) - k], 1) for k in range(7)]

    _, (whole, *single) = scores(trained, "ar", items)
    assert whole.nats == pytest.approx(sum(s.nats for s in single), rel=1e-5)


@pytest.mark.slow
def test_scores_of_a_bfloat16_run_depend_on_neither_batch_nor_order(trained):
    pipe = pipeline.load(trained("ar"))
    model = dataclasses.replace(pipe.experiment.model, dtype="bfloat16")
    narrow = dataclasses.replace(pipe.experiment, model=model)
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, pipe.tokenizer.size, n) for n in draw.integers(8, 17, 12)]
    items = [Item(tuple(map(int, r)), len(r) // 2) for r in rows]

    def found(size, order):
        scorer = Scorer(narrow, pipe.params, batch_size=size)
        nats = np.zeros(len(items))
        nats[order] = [s.nats for s in scorer([items[i] for i in order])[0]]
        return nats

    whole, order = found(16, np.arange(12)), np.arange(12)
    for size, other in ((16, order[::-1]), (5, order), (1, order[::-1])):
        np.testing.assert_allclose(found(size, other), whole, rtol=2e-6)


@pytest.mark.slow
def test_a_score_network_bounds_a_law(trained):
    """SEDD: -bound <= log p for every token, so that they sum to one at most, but for the draws."""
    _, found = scores(trained, "sedd", every_next, draws=64)
    assert not any(s.exact for s in found)
    p = np.exp([-s.nats for s in found])
    error = np.sqrt(sum((q * s.se) ** 2 for q, s in zip(p, found)))
    assert 0.2 < p.sum() < 1 + 4 * error, (p.sum(), error)
    assert error < 0.3
