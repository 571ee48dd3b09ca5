"""Conditional likelihoods of trained runs as laws: they sum to one, and multiply."""

import numpy as np
import pytest

from ldd_jax import api
from ldd_jax.requests import Item, Scorer


def scores(trained, method, items, **options):
    pipe = api.load(trained(method))
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


def test_left_to_right_multiplies(trained):
    """Log p(ab | c) = log p(a | c) + log p(b | ca), token by token."""

    def items(pipe):
        ids = tuple(pipe.tokenizer.encode("the river bank"))
        return [Item(ids, 7)] + [Item(ids[: len(ids) - k], 1) for k in range(7)]

    _, (whole, *single) = scores(trained, "ar", items)
    assert whole.nats == pytest.approx(sum(s.nats for s in single), rel=1e-5)


@pytest.mark.slow
def test_a_score_network_bounds_a_law(trained):
    """SEDD: -bound <= log p for every token, so that they sum to one at most, but for the draws."""
    _, found = scores(trained, "sedd", every_next, draws=64)
    assert not any(s.exact for s in found)
    p = np.exp([-s.nats for s in found])
    error = np.sqrt(sum((q * s.se) ** 2 for q, s in zip(p, found)))
    assert 0.2 < p.sum() < 1 + 4 * error, (p.sum(), error)
    assert error < 0.3
