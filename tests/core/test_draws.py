"""Categorical draws: exact shares in the tail, independence of batches and tiles, replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from ldd_jax.core import vocabulary_tiles
from ldd_jax.core.draws import (
    MUCH_SMALLER,
    NO_LAW,
    Forced,
    Production,
    Replay,
    _fine_uniforms,
    _unit,
    lawful,
    levels,
    most_probable,
    select,
)
from tests.lab import jit

pytestmark = pytest.mark.usefixtures("strict")


drawn = jax.jit(select)  # one program a shape; its operations one by one are dozens


def path_thresholds(p, target):
    """For each level: the float64 share of the smaller child, and whether the target is in it."""
    depth = levels(len(p))
    p = np.pad(np.asarray(p, np.float64), (0, 2**depth - len(p)))
    out = []
    for level in range(depth):
        width = 2 ** (depth - level)
        start = target // width * width
        middle = start + width // 2
        left, right = p[start:middle].sum(), p[middle : start + width].sum()
        on_right = target % width >= width // 2
        right_first = right < MUCH_SMALLER * left
        first = right if right_first else left
        out.append((first / (left + right), right_first == on_right))
    return out


@pytest.mark.parametrize("size", [2, 3, 7, 16, 50])
def test_every_token_gets_its_share(size):
    """The uniforms that lead to a token fill exactly p: thresholds are right to 1e-5 each."""
    rng = np.random.default_rng(size)
    p = np.exp(rng.uniform(np.log(1e-9), 0, size)).astype(np.float32)
    p[rng.integers(size)] = 1.0
    p[rng.integers(size)] = 1e-9
    off = 1e-5
    for target in range(size):
        path = path_thresholds(p, target)
        inside, outside, share = [], [], 1.0
        for c, in_first in path:
            inside.append(c * (1 - off) if in_first else c + (1 - c) * off + c * off)
            outside.append(c * (1 + off) if in_first else c * (1 - off))
            share *= c if in_first else 1 - c
        np.testing.assert_allclose(share, p[target] / p.astype(np.float64).sum(), rtol=1e-12)
        u = np.tile(inside, (len(path) + 1, 1))
        np.fill_diagonal(u[1:], outside)
        got = np.asarray(drawn(np.tile(p, (len(u), 1)), u.astype(np.float32)))
        assert got[0] == target
        # Crossing one threshold leaves the target, where that side has any mass at all.
        crossable = [o < 1 and (c > 0) for (c, _), o in zip(path, outside)]
        assert all(g != target for g, ok in zip(got[1:], crossable) if ok)


def test_zero_probability_is_never_drawn():
    p = jnp.asarray(np.eye(6, dtype=np.float32)[[0, 3, 5]])
    for u in (0.0, 0.5, 1.0):
        got = drawn(p, jnp.full((3, levels(6)), u))
        np.testing.assert_array_equal(got, [0, 3, 5])


def test_uniforms_resolve_the_tail():
    u = np.asarray(_fine_uniforms(jax.random.split(jax.random.key(0), 40_000), 2, jnp.float32))
    small = u[u < 2.0**-8]
    assert np.any(small * 2.0**24 % 1 != 0)  # a 23-bit uniform is a multiple of 2^-23
    np.testing.assert_allclose(u.mean(), 0.5, atol=4 * u.std() / np.sqrt(u.size))
    np.testing.assert_allclose(np.mean(u < 2.0**-8), 2.0**-8, rtol=0.2)


def test_frequencies():
    p = np.array([0.4, 0.003, 0.2, 0.0, 0.05, 0.3, 0.047])
    n = 100_000
    draw = Production(keys=jax.random.split(jax.random.key(1), n))
    logp = jnp.broadcast_to(jnp.log(jnp.asarray(p, jnp.float32))[None], (n, 7))
    count = np.bincount(jax.jit(draw.categorical)(logp), minlength=7)
    assert count[3] == 0
    assert chisquare(count[p > 0], n * p[p > 0]).pvalue > 1e-4


def rows_of(draw, logp, length, tile):
    fn = lambda logits, args: args.categorical(logits)
    return vocabulary_tiles.rows(fn, lambda a: a, logp, draw.at(step=3).rows(length), tile=tile)


@pytest.mark.slow
def test_draws_do_not_depend_on_batch_or_tile():
    key, length, size = jax.random.key(2), 5, 11
    logp = jax.random.normal(jax.random.key(3), (4 * length, size))
    run = jit(rows_of, static_argnums=(2, 3))
    whole = run(Production.of(key, jnp.arange(4)), logp, length, 0)
    tiled = run(Production.of(key, jnp.arange(4)), logp, length, 7)
    np.testing.assert_array_equal(whole, tiled)
    single = run(Production.of(key, jnp.array([2])), logp[10:15], length, 0)
    np.testing.assert_array_equal(whole[10:15], single)
    assert len(np.unique(np.asarray(whole))) > 2


def test_steps_and_sites_differ():
    draw = Production.of(jax.random.key(4), jnp.arange(3))
    seen = [draw.at(step=i, site=s).uniform((2,)) for i in (None, 0, 1) for s in (None, 0, 1)]
    flat = np.asarray(seen).reshape(len(seen), -1)
    assert len(np.unique(flat)) == flat.size


def test_replay_is_the_race():
    rng = np.random.default_rng(0)
    u, p = rng.uniform(size=(2, 3, 4, 5)), rng.dirichlet(np.ones(5), 12)
    got = Replay(table=jnp.asarray(u)).at(step=1).rows(4).categorical(jnp.log(jnp.asarray(p)))
    expected = np.argmax(p / (1e-10 - np.log(u[1].reshape(12, 5) + 1e-10)), -1)
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="one draw per step"):
        Replay(table=jnp.asarray(u)).at(site=1)
    with pytest.raises(ValueError):
        Forced(tokens=jnp.zeros(3, jnp.int32)).uniform((2,))


def test_ranking_takes_places_without_replacement():
    """Frequencies of whole orders against exp(logit) shares; impossible places come last."""
    logit = np.array([0.5, -np.inf, 1.5, 0.0])
    draws = 20_000
    draw = Production.of(jax.random.key(3), jnp.arange(draws))
    ranks = np.asarray(draw.ranking(jnp.tile(jnp.asarray(logit, jnp.float32), (draws, 1))))
    assert (np.sort(ranks, 1) == np.arange(4)).all() and (ranks[:, 1] == 3).all()
    weight = np.exp(logit[[0, 2, 3]])
    for first in range(3):
        for second in set(range(3)) - {first}:
            left = weight.sum() - weight[first]
            p = weight[first] / weight.sum() * weight[second] / left
            place = np.array([0, 2, 3])
            seen = ((ranks[:, place[first]] == 0) & (ranks[:, place[second]] == 1)).mean()
            assert abs(seen - p) < 5 * np.sqrt(p * (1 - p) / draws), (first, second, seen, p)


def test_what_is_certain_happens():
    """Uniforms stay below 1: this key's 64 bits round up to it in float32."""
    key = jax.random.wrap_key_data(jnp.asarray([1786195089, 2454539109], jnp.uint32))[None]
    assert _fine_uniforms(jax.vmap(jax.random.fold_in, (0, None))(key, 1), 1, jnp.float32)[0, 0] < 1
    assert Production(key).event(jnp.ones(1, jnp.float32)).all()
    most = jnp.asarray([2**32 - 1], jnp.uint32)
    assert _unit(most, most, jnp.float32)[0] == np.nextafter(np.float32(1), np.float32(0))
    assert _unit(most * 0, most * 0, jnp.float32)[0] == 0


def test_what_is_certain_happens_in_float64(x64):
    most = jnp.asarray([2**32 - 1], jnp.uint32)
    assert _unit(most, most, jnp.float64)[0] == np.nextafter(1.0, 0.0)


@pytest.mark.parametrize("size", [1, 2, 3, 9, 50])
def test_an_index_is_never_outside(size):
    """Whatever the weights: NaN, infinite, none at all, and zeros at the ends."""
    u = jnp.asarray(np.random.default_rng(0).uniform(size=(400, levels(size))), jnp.float32)
    u = u.at[0].set(0).at[1].set(np.nextafter(np.float32(1), np.float32(0)))
    for weight in (jnp.nan, jnp.inf, 0.0):
        rows = jnp.full((400, size), weight, jnp.float32)
        token = np.asarray(drawn(rows, u))
        assert ((token >= 0) & (token < size)).all()
    for at in (0, size - 1):
        only = jnp.zeros((400, size), jnp.float32).at[:, at].set(1e-30)
        assert (drawn(only, u) == at).all()


LAWLESS = {
    "nan": [0.0, jnp.nan, -1.0],
    "all impossible": [-jnp.inf] * 3,
    "infinitely likely": [0.0, jnp.inf, 0.0],
}


@pytest.mark.parametrize("why", LAWLESS)
def test_no_token_is_drawn_from_what_is_no_law(why):
    logp = jnp.asarray([[0.0, -jnp.inf, -1.0], LAWLESS[why]], jnp.float32)
    draw = Production(jax.random.split(jax.random.key(0), 2))
    for pick in (draw.categorical, most_probable):
        with pytest.raises(FloatingPointError, match=r"1 of 2 rows .the first: 1.") as caught:
            pick(logp)
        assert "\n" not in str(caught.value)
        found = jax.jit(pick)(logp)  # a compiled program cannot raise: it marks the row
        assert found[1] == NO_LAW and 0 <= found[0] < 3
    assert jax.jit(lawful)(logp).tolist() == [True, False]
