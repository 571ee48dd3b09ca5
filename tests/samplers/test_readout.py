"""The nucleus is what sorting in float64 says, ties and impossible tokens included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldd_jax.samplers.logits import Readout, keep_top_p


def by_sorting(p, mass):
    """Tokens at least as probable as the one whose cumulative mass crosses."""
    order = np.argsort(-p, kind="stable")
    crossing = int(np.searchsorted(np.cumsum(p[order]), mass))
    return p >= p[order[min(crossing, len(p) - 1)]]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any),
    st.sampled_from([0.01, 0.2, 0.37, 0.5, 0.77, 0.93, 0.999]),
)
def test_nucleus(weights, mass):
    p = np.asarray(weights, np.float64)
    p = p / p.sum()
    reach = np.cumsum(np.sort(p)[::-1])
    if np.abs(reach - mass).min() < 1e-6:
        return  # rounding decides on which side of the mass the token lies
    logp = jnp.log(jnp.asarray(p[None], jnp.float32))
    np.testing.assert_array_equal(keep_top_p(logp, mass)[0], by_sorting(p, mass))


def test_a_wide_vocabulary_and_rows_that_do_not_meet():
    logp = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(0), (3, 5003)))
    kept = keep_top_p(logp, 0.9)
    for row, keep in zip(np.asarray(logp, np.float64), np.asarray(kept), strict=True):
        p = np.exp(row)
        assert p[keep].sum() >= 0.9 - 1e-5
        assert p[keep].sum() - p[keep].min() < 0.9 + 1e-5
        assert p[keep].min() >= p[~keep].max()
    np.testing.assert_array_equal(keep_top_p(logp[1:2], 0.9)[0], kept[1])


def test_the_next_smaller_number_is_no_tie():
    """Two tokens one unit in the last place apart; the larger one alone holds the mass."""
    logp = jnp.log(jnp.asarray([[0.5, 0.25]], jnp.float32))
    p = np.exp(logp)
    p[0, 1] = np.nextafter(p[0, 0], np.float32(0))
    logp = jnp.log(p)
    first, second = np.exp(logp)[0]
    assert first > second == np.nextafter(first, np.float32(0))
    np.testing.assert_array_equal(keep_top_p(logp, 0.4), [[True, False]])


@pytest.mark.parametrize("readout", [Readout(top_p=0.6), Readout(top_k=3), Readout(temperature=2)])
def test_settings_leave_a_distribution(readout):
    logp = readout(jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (4, 11))))
    np.testing.assert_allclose(jnp.exp(logp).sum(-1), 1, rtol=1e-5)


def test_temperature_0_is_the_limit_of_small_ones():
    logp = jax.nn.log_softmax(jnp.asarray([[0.3, 2.0, 1.0], [1.0, 0.5, 1.0], [-jnp.inf, 0.0, 1.0]]))
    cold = Readout(temperature=0.0)(logp)
    assert jnp.argmax(cold, -1).tolist() == [1, 0, 2]  # the first of those that tie
    np.testing.assert_array_equal(np.exp(cold).sum(-1), 1)
    np.testing.assert_allclose(np.exp(cold)[::2], np.exp(Readout(temperature=1e-3)(logp))[::2])
    for temperature in (-0.5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            Readout(temperature=temperature)


@pytest.mark.slow
def test_the_nucleus_of_a_pair_is_that_of_each_of_the_two():
    """Guidance without masks reads pairs [N, 2, V]; with V = 2 the wrong axis fits, too."""
    for size in (2, 7):
        logp = jax.nn.log_softmax(2 * jax.random.normal(jax.random.key(2), (5, 2, size)))
        for mass in (0.5, 0.9):
            both = np.asarray(keep_top_p(logp, mass))
            for i in (0, 1):
                np.testing.assert_array_equal(both[:, i], keep_top_p(logp[:, i], mass))
    pair = jnp.log(jnp.asarray([[[0.95, 0.05], [0.6, 0.4]]]))
    assert keep_top_p(pair, 0.9).tolist() == [[[True, False], [True, True]]]
