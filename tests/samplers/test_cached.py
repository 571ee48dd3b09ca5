"""Blocks with a cache: the law by enumeration, the same tokens without one, prompts, ends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import DiT, Llama
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Cached,
    Clamp,
    Fill,
    FirstHitting,
    Latent,
    Recomputed,
    Skipping,
    TauLeaping,
    ThetaTrapezoidal,
    Whole,
    sample_blocks,
)
from ldd_jax.samplers.net import Net
from tests import block_law
from tests.lab import jit, live_params
from tests.samplers.counted import SHAPES, Counted

B, L, SIZE, MASK = 3, 8, 2, 5
TOKENS = TokenSpace(size=6, mask=MASK)
FIELDS = dict(tokens=TOKENS, width=16, heads=2, block=SIZE)
NETWORKS = {
    "dit": DiT(**FIELDS, depth=1, cond_width=8, time_conditioning=True),
    "llama": Llama(**FIELDS, depth=2, kv_heads=1, latent=True),
    "plain": DiT(**FIELDS, depth=1, cond_width=8, latent=False),
}
SCALES = {"dit": 0.3, "llama": 0.2, "plain": 0.15}  # no token is certain
INDEX = jnp.arange(B)


def net_of(name="plain", process=Masked):
    model = NETWORKS[name]
    return Net(model.bind(live_params(model, scale=SCALES[name])), process(tokens=TOKENS))


def run(net, blocks, step=None, *, length=L, clamp=None, steps=3, index=INDEX, **options):
    prior = net.process.prior(example_keys(jax.random.key(1), index), length)
    draw = Production.of(jax.random.key(2), index)
    more = dict(window=SIZE, blocks=blocks, clamp=clamp, **options)
    go = lambda: sample_blocks(net, step or Ancestral(), draw, prior, steps, **more)[0]
    return jit(lambda: go()._replace(h=None))()


def given(*prompts):
    """Prompts of several lengths, and their clamp."""
    fixed = jnp.arange(L) < jnp.asarray(prompts)[:, None]
    return Clamp(jnp.broadcast_to(jnp.arange(L) % MASK, (B, L)), fixed)


def same(a, b):
    np.testing.assert_array_equal(a.z, b.z)
    assert (np.asarray(a.z) != MASK).all() and len(np.unique(a.z)) > 2


@pytest.mark.slow
def test_a_cache_changes_no_logit():
    """Block by block with a cache, and as one row: to 1e-5, whatever the cache's length."""
    z = jax.random.randint(jax.random.key(5), (B, L), 0, MASK)
    cond = Cond(clock=jnp.full(B, 0.7))

    def by_blocks(d):
        cache, out = d.cache(B, L + 3), []
        for begin, end in ((0, 2), (2, 6), (6, 8)):
            trunk = d.trunk(z[:, begin:end], cond, cache=cache)
            cache, out = trunk.cache, [*out, trunk.features]
        return d.head(jnp.concatenate(out, axis=1))

    for name in ("dit", "llama"):
        denoiser = net_of(name).denoiser
        whole = jit(lambda d: d.head(d.trunk(z, cond).features))(denoiser)
        np.testing.assert_allclose(jit(by_blocks)(denoiser), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dit", "llama"])
def test_the_same_tokens_with_and_without_a_cache(name):
    """A latent in every block; prompts that end within a block, at its end, and nowhere."""
    net = net_of(name)
    clamp = given(5, 4, 7)
    cached, row = (run(net, blocks, clamp=clamp) for blocks in (Cached(), Recomputed()))
    same(cached, row)
    free = run(net, Cached(), clamp=given(0, 0, 0))
    assert (free.z != cached.z).any()
    assert free.calls.tolist() == [L // SIZE * (3 + 1)] * B  # steps, cache
    assert row.calls.tolist() == [3 * 2, 3 * 2, 3]  # rows whose block is given pay nothing
    assert (cached.calls - row.calls).tolist() == [1 + 2] * B  # the prompt, two blocks
    no_latent = run(net, Cached(), clamp=given(0, 0, 0), latent=Latent(reset_every=1))
    assert (no_latent.z != free.z).any()


@pytest.mark.slow
@pytest.mark.parametrize("step", [ThetaTrapezoidal(), Skipping()], ids=["two calls", "own pace"])
def test_every_rule_works_in_a_block(step):
    same(*(run(net_of(), blocks, step, length=4) for blocks in (Cached(), Recomputed())))


@pytest.mark.slow
def test_uniform_diffusion_goes_by_blocks():
    net = net_of("dit", Uniform)
    both = [run(net, blocks, TauLeaping(), length=4) for blocks in (Cached(), Recomputed())]
    np.testing.assert_array_equal(both[0].z, both[1].z)


def test_the_law_is_that_of_enumeration():
    """One place after the other, 4,000 rows of all 81."""
    denoiser = block_law.network("dit")
    law = np.exp(block_law.log_likelihood(block_law.log_laws(denoiser)))
    index = jnp.arange(4000)
    made = run(Net(denoiser, block_law.PROCESS), Cached(), FirstHitting(), length=4, index=index)
    count = np.bincount(np.asarray(made.z) @ 3 ** np.arange(4)[::-1], minlength=81)
    rare = law * len(index) < 5
    seen, expected = (np.append(a[~rare], a[rare].sum()) for a in (count, law * len(index)))
    keep = expected > 0
    assert stats.chisquare(seen[keep], expected[keep], sum_check=False).pvalue > 1e-3


@pytest.mark.slow
def test_one_program_for_every_length():
    """What is beyond a row is given: blocks of it are not made, and nothing is compiled again."""
    net = net_of()
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), L)
    draw = Production.of(jax.random.key(2), INDEX)

    @jax.jit
    def go(fixed, steps):
        clamp = Clamp(jnp.zeros((B, L), jnp.int32), fixed)
        more = dict(blocks=Cached(), window=SIZE, clamp=clamp)
        return sample_blocks(net, Ancestral(), draw, prior, steps, **more)[0]

    whole = go(jnp.zeros((B, L), bool), 3)
    for length in (2, 4, 6):
        some = go(jnp.broadcast_to(jnp.arange(L) >= length, (B, L)), 3)
        np.testing.assert_array_equal(some.z[:, :length], whole.z[:, :length])
        assert some.calls.tolist() == [length // SIZE * 4] * B
    assert go(jnp.zeros((B, L), bool), 1).calls.tolist() == [4 * 2] * B
    assert go._cache_size() == 1


def test_the_network_is_not_called_for_blocks_of_nothing_but_prompt():
    """One pass for the prompt, steps and the cache for two blocks, the cache alone between them."""
    net = net_of()
    net = dataclasses.replace(net, denoiser=Counted(net.denoiser))
    fixed = jnp.ones((B, L), bool).at[:, 3].set(False).at[:, 7].set(False)
    SHAPES.clear()
    state = run(net, Cached(), clamp=Clamp(jnp.zeros((B, L), jnp.int32), fixed))
    jax.block_until_ready(state.z)
    jax.effects_barrier()
    assert sorted(shape[1] for shape in SHAPES) == [SIZE] * (3 + 1 + 1 + 3 + 1) + [L]
    assert state.calls.tolist() == [len(SHAPES)] * B


def test_a_row_without_a_prompt_pays_for_none():
    """Two blocks of three steps, and the cache of each."""
    assert run(net_of(), Cached(), length=4).calls.tolist() == [(3 + 1) * 2] * B


def test_without_a_cache_every_call_is_about_the_whole_row():
    net = net_of()
    net = dataclasses.replace(net, denoiser=Counted(net.denoiser))
    SHAPES.clear()
    state = run(net, Recomputed(), length=4)
    jax.block_until_ready(state.z)
    jax.effects_barrier()
    assert SHAPES == [(B, 4)] * 3 * 2 and state.calls.tolist() == [3 * 2] * B


@pytest.mark.slow
def test_rows_end_by_themselves():
    """After the first EOS that is not given there is nothing else, and no more calls."""
    net, clamp = net_of(), given(3, 0, 0)
    plain = np.asarray(run(net, Cached(), clamp=clamp, eos=0).z)  # that does not stop
    free = ~np.asarray(clamp.fixed)
    first = lambda row, own, eos: next((i for i in range(L) if own[i] and row[i] == eos), L - 1)
    ends = lambda eos: [first(*pair, eos) for pair in zip(plain, free)]
    # One that the first row's prompt holds and that it does not end with at once.
    good = lambda eos: ends(eos)[0] > 3 and len({e // SIZE for e in ends(eos)}) > 1
    eos = next(filter(good, range(3)))
    made = run(net, Cached(stop=True), eos=eos, clamp=clamp)
    for row, other, end, calls, given_blocks in zip(
        made.z, plain, ends(eos), made.calls, (1, 0, 0)
    ):
        np.testing.assert_array_equal(row[: end + 1], other[: end + 1])
        assert (row[end + 1 :] == eos).all()
        assert calls == (end // SIZE + 1) * 4 - 3 * given_blocks


@pytest.mark.parametrize(
    "blocks, options, why",
    [
        (Whole(), {}, "goes by blocks of 2"),
        (Fill(size=2), {}, "goes by blocks of 2"),
        (Cached(), {"record": lambda s: s.z}, "a record is of one block"),
        (Cached(), {"length": 7}, "not made of whole blocks"),
        (
            Cached(),
            {"clamp": Clamp(jnp.zeros((B, L), int), jnp.zeros((B, L), bool), jnp.ones((B, L)))},
            "one document",
        ),
    ],
)
def test_what_is_refused(blocks, options, why):
    net = net_of()
    with pytest.raises(ValueError, match=why):
        blocks.check(net.process, net.denoiser.block)
        run(net, blocks, **options)


def test_other_networks_keep_no_blocks():
    with pytest.raises(ValueError, match="needs a network by blocks"):
        Cached().check(Masked(tokens=TOKENS), 0)
    with pytest.raises(ValueError, match="latent is reset"):
        Cached(latent="shift")
    whole = dataclasses.replace(NETWORKS["plain"], block=0)
    with pytest.raises(UserError, match="keeps no cache"):
        whole.bind({}).cache(1, 4)
    with pytest.raises(ValueError, match="blocks of 1"):
        dataclasses.replace(NETWORKS["plain"], causal=True)
