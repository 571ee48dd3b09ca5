"""Attention's own backward rule against autodiff of the formula, with every mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Attend
from ldd_jax.denoisers.attention import FULL, allowed, masked, plain


def formula(q, k, v, mask):
    """softmax(q k^T / sqrt(K)) v, as it is written."""
    scores = jnp.einsum("blhk,bshk->bhls", q, k) / q.shape[-1] ** 0.5
    scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    return jnp.einsum("bhls,bshk->blhk", jax.nn.softmax(scores, -1), v)


def arrays(queries, keys, dtype, heads=2, size=4):
    ks = jax.random.split(jax.random.key(3), 4)
    shapes = [(3, queries), (3, keys), (3, keys), (3, queries)]
    return [2 * jax.random.normal(k, (*s, heads, size), dtype) for k, s in zip(ks, shapes)]


SEGMENTS = jnp.array([[1] * 7, [1, 1, 2, 2, 2, 0, 0], [1, 2, 3, 4, 5, 6, 0]])
BAND = jnp.abs(jnp.arange(7)[:, None] - jnp.arange(7)) <= 1
UNITS = jnp.array([[0, 0, 1, 1, 2, 2, 2], [0] * 7, [0, 1, 2, 3, 4, 5, 6]])
ATTEND = {
    "full": FULL,
    "causal": Attend("causal"),
    "block": Attend("block", unit=UNITS),
    "one mask": Attend("mask", mask=BAND),
    "a mask a row": Attend("mask", mask=jnp.stack([BAND, BAND.T | (BAND @ BAND), BAND])),
}


def test_who_sees_whom():
    """Each kind by its definition, alone and within documents."""
    of = lambda name, segment=None: allowed(7, segment, ATTEND[name])
    assert of("full") is None
    units = np.asarray(UNITS)
    for i in range(7):
        for j in range(7):
            assert of("causal")[0, 0, i, j] == (j <= i)
            assert of("one mask")[0, 0, i, j] == (abs(i - j) <= 1)
            for b in range(3):
                sees, same = units[b, j] <= units[b, i], SEGMENTS[b, i] == SEGMENTS[b, j]
                assert of("block")[b, 0, i, j] == sees
                assert of("block", SEGMENTS)[b, 0, i, j] == (sees and same)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_noise_beside_its_clean_row(size):
    """Noise: its own block's noise, clean blocks before. Clean: clean blocks up to its own."""
    unit = np.arange(8) // size
    of = lambda attend: np.asarray(allowed(16, None, attend))
    mine = of(Attend("doubled", size=size))
    np.testing.assert_array_equal(mine, of(Attend("doubled", unit=jnp.asarray(unit)[None])))
    for q, k in np.ndindex(16, 16):
        own, there = unit[q % 8], unit[k % 8]
        if q < 8:
            expected = there == own if k < 8 else there < own
        else:
            expected = k >= 8 and there <= own
        assert mine[0, 0, q, k] == expected
    np.testing.assert_array_equal(
        of(Attend("block", size=size))[0, 0, :8, :8], unit[:, None] >= unit
    )


@pytest.mark.parametrize(
    "wrong, why",
    [
        (Attend("sideways"), "'sideways' is not one of full, causal"),
        (Attend("block"), "unit belongs to kind 'block'"),
        (Attend("block", unit=UNITS, size=2), "or a size in its place"),
        (Attend("causal", size=2), "and to no other"),
        (Attend("doubled"), "unit belongs to kind 'block' or 'doubled'"),
        (Attend("full", mask=BAND), "mask belongs to kind 'mask'"),
    ],
)
def test_what_is_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        wrong.check()


@pytest.mark.slow
@pytest.mark.parametrize("segment", [None, SEGMENTS], ids=["whole", "documents"])
@pytest.mark.parametrize("attend", ATTEND)
def test_output_and_gradients_are_those_of_the_formula(x64, segment, attend):
    attend = ATTEND[attend]
    q, k, v, cotangent = arrays(7, 7, jnp.float64)
    mine, pull = jax.vjp(lambda *a: plain(*a, segment, attend), q, k, v)
    mask = allowed(7, segment, attend)
    expected, other = jax.vjp(lambda *a: formula(*a, mask), q, k, v)
    np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(pull(cotangent), other(cotangent)):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_queries_against_a_longer_cache(x64):
    q, k, v, cotangent = arrays(2, 5, jnp.float64)
    mask = jnp.arange(5)[None] <= (2 + jnp.arange(2))[:, None]
    pull = jax.vjp(lambda *a: masked(*a, mask[None, None]), q, k, v)[1]
    expected = jax.vjp(lambda *a: formula(*a, mask[None, None]), q, k, v)[1]
    for a, b in zip(pull(cotangent), expected(cotangent)):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_types_and_precision(strict, dtype):
    q, k, v, cotangent = arrays(7, 7, dtype)
    out, pull = jax.vjp(lambda *a: plain(*a, SEGMENTS), q, k, v)
    wide = [a.astype(jnp.float32) for a in (q, k, v)]
    expected, other = jax.vjp(lambda *a: formula(*a, allowed(7, SEGMENTS, FULL)), *wide)
    near = dict(rtol=1e-5, atol=1e-5) if dtype == jnp.float32 else dict(rtol=0.05, atol=0.2)
    pairs = [(out, expected), *zip(pull(cotangent), other(cotangent.astype(jnp.float32)))]
    for a, b in pairs:
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, **near)


def test_float64_is_not_narrowed(x64):
    q, k, v, _ = arrays(7, 7, jnp.float64)
    assert np.max(np.abs(plain(q, k, v, None) - formula(q, k, v, None))) < 1e-14
