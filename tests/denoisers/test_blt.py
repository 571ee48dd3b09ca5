"""The network over patches: what sees what, its parts against plain references, its operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import Blt
from ldd_jax.denoisers.attention import masked
from ldd_jax.denoisers.blt import equal_size
from ldd_jax.denoisers.dit import DiT
from ldd_jax.denoisers.patched import Pool, banded, by_patch, ngram_hashes, patch_max
from ldd_jax.planning.flops import count
from tests.lab import jit, live_params

SPACE = TokenSpace(size=9, mask=8)
SMALL = dict(width=16, depth=2, heads=2, window=3, buckets=64, tokens=SPACE)
UNIT = jnp.asarray([[0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4], [0, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3]])


def bytes_of(seed, shape=(2, 12)):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 8, shape), jnp.int32)


def test_hashes_have_the_classes_of_plain_python():
    """Equal hashes exactly where the n-grams are equal (no collision in 2^16 buckets here)."""
    z = np.asarray(bytes_of(0, (3, 40))) % 3
    for size in (2, 3, 5):
        found = np.asarray(ngram_hashes(jnp.asarray(z), size, 1 << 16))
        grams = [
            tuple(row[i - j] + 1 if i >= j else 0 for j in range(size))
            for row in z for i in range(40)
        ]  # fmt: skip
        pairs = set(zip(grams, found.reshape(-1).tolist(), strict=True))
        assert len(pairs) == len(set(grams)) == len({h for _, h in pairs})


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length, width", [(5, 3), (17, 4), (16, 4), (30, 7)])
def test_a_window_by_blocks_is_masked_attention(length, width, causal):
    q, k, v = jax.random.normal(jax.random.key(length), (3, 2, length, 2, 4))
    gap = np.arange(length)[:, None] - np.arange(length)
    mask = (gap <= width) & (gap >= (0 if causal else -width))
    want = masked(q, k, v, jnp.asarray(mask)[None, None])
    found = jit(lambda q, k, v: banded(q, k, v, width, causal))(q, k, v)
    np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.slow
def test_pooling_is_by_patch():
    """The maximum, with its gradient; attention sees bytes of its own patch, an empty one is 0."""
    x = jax.random.normal(jax.random.key(0), (2, 12, 3))
    top = np.asarray(patch_max(x, UNIT, 6))
    for b in range(2):
        for p in range(6):
            own = np.asarray(x)[b, np.asarray(UNIT[b]) == p]
            np.testing.assert_array_equal(top[b, p], own.max(0) if len(own) else np.zeros(3))
    slope = jit(jax.grad(lambda x: jnp.sum(patch_max(x, UNIT, 6))))(x)
    np.testing.assert_array_equal(by_patch(jax.ops.segment_sum, slope, UNIT, 5)[0], 1)
    pool = Pool(8, 1, jnp.float32)
    params = jit(lambda: pool.init(jax.random.key(1), x[..., :2], UNIT, 6))()
    slope = jit(jax.jacobian(lambda x: pool.apply(params, x, UNIT, 6)))(x[..., :2])
    moved = np.abs(slope).max((2, 5))  # [B, P, B, L]
    for b in range(2):
        own = np.asarray(UNIT[b])[None] == np.arange(6)[:, None]
        assert ((moved[b, :, b] > 0) == own).all() and not moved[b, :, 1 - b].any()


@pytest.mark.parametrize("given", [pytest.param(False, marks=pytest.mark.slow), True])
def test_left_to_right_leaks_nothing(given):
    """Byte i changes no logits of bytes <= i and some of those after; a cache gives the same."""
    model = Blt(**SMALL, causal=True, patch=0 if given else 3, patches=5 if given else 0)
    cond = Cond(unit=UNIT if given else None)
    net = model.bind(live_params(model))
    start = jnp.full((2, 1), 8, jnp.int32)
    run = jit(lambda x: net.trunk(jnp.concatenate([start, x[:, :-1]], 1), cond).features)
    x = bytes_of(1)
    whole = run(x)
    for i in range(11):
        other = run(x.at[:, i].set((x[:, i] + 3) % 8))
        np.testing.assert_array_equal(other[:, : i + 1], whole[:, : i + 1])
        assert (np.abs(other - whole)[:, i + 1].max(-1) > 1e-6).all()
    cache, seen = net.cache(2, 12), []
    one = jit(lambda z, cache: net.trunk(z, cond, cache=cache)[::2])
    for i in range(12):
        features, cache = one(start if i == 0 else x[:, i - 1 : i], cache)
        seen.append(features)
    np.testing.assert_allclose(jnp.concatenate(seen, 1), whole, atol=2e-5)


@pytest.mark.slow
def test_static_patches_are_given_ones_and_the_latent_is_by_patch():
    one = SMALL | dict(depth=1, ngrams=(3,), latent=True)
    static, given = Blt(**one, patch=4), Blt(**one, patch=0, patches=3)
    wide = Blt(**one, patch=0, patches=7)
    params, z = live_params(static), bytes_of(2)
    unit = jnp.broadcast_to(jnp.arange(12) // 4, (2, 12))

    @jit
    def run():
        first = static.bind(params).trunk(z, Cond())
        again = static.bind(params).trunk(z, Cond(), first.latent)
        told = [m.bind(params).trunk(z, Cond(unit=unit)).features for m in (given, wide)]
        return first, again.features, *told

    a, again, b, spare = run()
    np.testing.assert_array_equal(a.features, b)
    assert a.latent.shape == static.bind(params).latent(2, 12).shape == (2, 3, 16)
    assert np.abs(again - a.features).max() > 1e-3
    np.testing.assert_allclose(spare, a.features, atol=2e-5)  # empty rows are not seen


@pytest.mark.parametrize("how", [dict(patch=4), dict(patch=0, patches=9), dict(causal=True)])
def test_operations_are_those_of_the_program(how):
    model, length = Blt(**SMALL, encoder=2, **how), 40
    params = jax.eval_shape(model.init, jax.random.key(0))
    unit = None if model.patch else jnp.zeros((1, length), jnp.int32)
    z = jnp.zeros((1, length), jnp.int32)
    trunk = lambda p: model.bind(p).trunk(z, Cond(unit=unit)).features
    closed = model.operations(length)
    pad = 1 if length % model.window == 0 else 42 / 40  # whole windows
    made = count(trunk, params).total / length
    assert closed["trunk"] <= made * (1 + 1e-6) and made <= closed["trunk"] * pad * 1.02
    head = count(lambda p: model.bind(p).head(jnp.zeros((length, 8))), params).total
    assert head == length * closed["head"]


@pytest.mark.parametrize("how", [dict(patch=4), dict(patch=8), dict(local_width=64, patch=3)])
def test_equal_operations(how):
    model = Blt(width=96, depth=3, heads=4, tokens=SPACE, **how)
    size = equal_size(model, 64, SPACE.size)
    other = DiT(**size, depth=3, tokens=SPACE).operations(64)
    assert abs(sum(other.values()) / sum(model.operations(64).values()) - 1) < 0.03


def test_refusals():
    model = Blt(**SMALL, patch=4)
    net = model.bind(live_params(model))
    for cond, why in ((Cond(unit=UNIT), "set model.patch"), (Cond(segment=UNIT), "packed")):
        with pytest.raises((ValueError, UserError), match=why):
            net.trunk(bytes_of(0), cond)
    with pytest.raises(UserError, match="come from the data"):
        Blt(**SMALL, patch=0, patches=4).bind(net.params).trunk(bytes_of(0), Cond())
    with pytest.raises(UserError, match="keeps no cache"):
        net.cache(1, 4)
    for bad in (dict(patch=4, patches=3), dict(patch=0), dict(views=3), dict(ngrams=(1,))):
        with pytest.raises(ValueError):
            Blt(**SMALL | bad)
