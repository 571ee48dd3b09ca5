"""Estimates from log-weights and their errors, against repeated experiments."""

from __future__ import annotations

import numpy as np
import pytest

from ldd_jax.evaluation.weights import weigh


def drawn(rng, n=1000):
    """W = normal with variance .2 around .3, and an observable that goes with it."""
    w = rng.normal(0.3, np.sqrt(0.2), n)
    return w, {"o": w + rng.normal(size=n)}


def test_estimates_and_errors_are_those_of_repetition():
    """log Z = mean + variance / 2 = .4; the mean of W under e^W is .3 + .2; ESS e^-.2."""
    rng = np.random.default_rng(0)
    all_ = [weigh(*drawn(rng)) for _ in range(600)]
    for get, truth in (
        (lambda f: f.elbo, 0.3),
        (lambda f: f.log_z, 0.4),
        (lambda f: f.path_kl, 0.1),
        (lambda f: f.ess, np.exp(-0.2)),
        (lambda f: f.means["o"], 0.5),
        (lambda f: f.plain["o"], 0.3),
    ):
        values = np.array([get(f).value for f in all_])
        errors = np.array([get(f).se for f in all_])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(600) + 0.003
        assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_large_weights_and_impossible_configurations():
    w = np.array([1e5, 1e5 + np.log(3), -np.inf, -np.inf])
    found = weigh(w, {"energy": np.array([1.0, 2.0, np.inf, np.inf])})
    assert found.log_z.value == pytest.approx(1e5, abs=1e-9)
    assert found.ess.value == pytest.approx(16 / 10 / 4)
    assert found.means["energy"].value == pytest.approx(7 / 4)
    assert found.elbo.value == -np.inf
    same = weigh(np.full(5, -3.0), {})
    assert (same.log_z.value, same.ess.value, same.path_kl.value) == (-3, 1, 0)
    assert same.log_z.se == 0
    for bad in ([np.nan, 1], [-np.inf, -np.inf]):
        with pytest.raises(FloatingPointError, match="of 2 rollouts"):
            weigh(np.array(bad), {})
