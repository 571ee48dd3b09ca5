"""Caches of networks that see both ways: a pass anew changes nothing, one that is kept does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import DiT, Llama
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Clamp,
    Confidence,
    Dual,
    Fill,
    Latent,
    LowEntropy,
    Prefix,
    sample,
    sample_blocks,
)
from ldd_jax.samplers.guidance import guide_prompt
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.windows import Within
from tests.lab import jit, live_params

B, L, SIZE, MASK = 3, 7, 2, 5
TOKENS = TokenSpace(size=6, mask=MASK)
FIELDS = dict(tokens=TOKENS, width=16, heads=2)
NETWORKS = {
    "dit": DiT(**FIELDS, depth=1, cond_width=8, latent=True),
    "llada": Llama(**FIELDS, depth=2, kv_heads=1),
    "dream": Llama(**FIELDS, depth=2, shift="repeat"),
}
CAUSAL = Llama(**FIELDS, depth=1, causal=True)
OFF = Latent(reset_every=1)
INDEX = jnp.arange(B)
PROMPT = Clamp(
    (jnp.arange(L) * 2 + jnp.arange(B)[:, None]) % MASK,
    jnp.arange(L) < jnp.asarray([[3], [0], [1]]),
)


def net_of(name, **more):
    model = CAUSAL if name == "causal" else NETWORKS[name]
    readout = Readout(temperature=0.0)
    denoiser = model.bind(live_params(model, scale=1.0))
    return Net(denoiser, Masked(tokens=TOKENS), readout, **more)


def run(net, blocks, step=None, **options):
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), L)
    draw = Production.of(jax.random.key(2), INDEX)
    more = dict(window=L, blocks=blocks, clamp=PROMPT, latent=OFF) | options
    go = lambda: sample_blocks(net, step or Confidence(), draw, prior, 3, **more)[0]
    return jit(lambda: go()._replace(h=None))()


@pytest.mark.slow
def test_rows_with_a_cache_stay_where_they_are():
    """`compact` is for rows without one."""
    net = net_of("llada")
    plain, asked = (run(net, Dual(size=SIZE), compact=n) for n in (0, 2))
    jax.tree.map(np.testing.assert_array_equal, asked, plain)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_window_with_a_fresh_cache_is_the_whole_row(name):
    """Features at every place and width, to rounding; after other tokens outside, they differ."""
    denoiser = net_of(name).denoiser
    z = jax.random.randint(jax.random.key(5), (B, L), 0, MASK)
    other = z.at[:, 0].set((z[:, 0] + 1) % MASK)
    cond = Cond(clock=jnp.full(B, 0.7))

    @jit
    def pass_over(z):
        return denoiser.trunk(z, cond)

    @jit
    def window(z, start, kept_from):
        cache = denoiser.trunk(kept_from, cond, cache=denoiser.around(B, L)).cache
        within = Within(denoiser, cache.at(start), z)
        here = jax.lax.dynamic_slice_in_dim(z, start, 3, axis=1)
        return within.trunk(here, cond).features

    whole = pass_over(z).features
    for start in (0, 1, L - 3):
        found = window(z, start, z)
        np.testing.assert_allclose(found, whole[:, start : start + 3], rtol=1e-4, atol=1e-5)
    stale = window(other, L - 3, z) - pass_over(other).features[:, L - 3 :]
    assert np.abs(stale).max() > 1e-3
    again = pass_over(z), jit(lambda: denoiser.trunk(z, cond, cache=denoiser.around(B, L)))()
    if not denoiser.lead:  # with a shift, what a cache is asked for is by row
        np.testing.assert_allclose(again[1].features, again[0].features, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("blocks", [Dual, Prefix], ids=["dual", "prefix"])
def test_refreshed_at_every_step_it_is_the_sampler_without_a_cache(name, blocks):
    """The surest token first, so that no chance is in it; twice the calls."""
    net = net_of(name)
    plain, fresh, kept = (
        run(net, b) for b in (Fill(size=SIZE), blocks(size=SIZE, refresh=1), blocks(size=SIZE))
    )
    np.testing.assert_array_equal(fresh.z, plain.z)
    np.testing.assert_array_equal(fresh.calls, 2 * plain.calls)
    free = ~np.asarray(PROMPT.fixed)
    np.testing.assert_array_equal(np.where(free, 0, kept.z), np.where(free, 0, PROMPT.tokens))
    assert (kept.z != MASK).all() and len(np.unique(plain.z)) > 2, plain.z
    made = [sum(row[k : k + SIZE].any() for k in range(0, L, SIZE)) for row in free]
    np.testing.assert_array_equal(kept.calls, free.sum(1) + made)  # once a block


def test_one_block_draws_what_the_plain_loop_draws():
    """Chance and a grid; calls of both passes."""
    net = dataclasses.replace(net_of("llada"), readout=Readout())
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), L)
    draw = Production.of(jax.random.key(2), INDEX).at(step=0)
    plain = jit(lambda: sample(net, Ancestral(), draw, prior, 3)[0].z)()
    for blocks in (Dual(size=L, refresh=1), Dual(size=2, ahead=L, refresh=1), Prefix(size=L)):
        made = run(net, blocks, Ancestral(), clamp=None)
        if blocks.size == L:
            np.testing.assert_array_equal(made.z, plain)
        refreshes = 1 if not blocks.refresh else 3
        assert made.calls.tolist() == [(3 + refreshes) * -(-L // blocks.size)] * B


@pytest.mark.slow
def test_thresholds_and_stops_pay_less():
    net = net_of("llada")
    slow = run(net, Dual(size=4))
    fast = run(net, Dual(size=4), Confidence(threshold=0.25))
    assert (fast.calls < slow.calls).all() and (fast.z != MASK).all()
    factor = run(net, Dual(size=4), Confidence(factor=2.5))
    assert (factor.calls < slow.calls).all() and (factor.z != MASK).all()
    early = run(net, Dual(size=4, refresh=2), Ancestral(), stop=LowEntropy(threshold=9.0))
    blocks = [2 - (p >= 4) for p in np.asarray(PROMPT.fixed).sum(1)]
    # A pass, one step, and the noise removal where something was left.
    assert all(2 * b <= c <= 3 * b for b, c in zip(blocks, early.calls)) and max(early.calls) == 6


def test_windows_reach_back_to_their_block():
    assert Prefix(size=16).widths(64) == (64, 32, 16) and Dual(size=5).widths(4) == (4,)
    assert Prefix(size=16).shares(64) == (0.5, 0.25, 0.25)  # of 64, 48, 32 and 16 to the end
    assert Dual(size=16, ahead=8).widths(64) == (24,) and Dual(size=16).shares(64) == (1.0,)
    assert Dual(refresh=4).renewals(8) == 1 / 4 and Dual().renewals(8) == 1 / 8


REFUSED = [
    (lambda: Dual(size=0), "at least 1 position"),
    (lambda: Dual(refresh=-1), "refresh is 0"),
    (lambda: Dual(ahead=-1), "number of positions"),
    (lambda: Prefix(latent="shift"), "latent is reset"),
    (lambda: Dual().check(Uniform(tokens=TOKENS)), "needs masked diffusion"),
    (lambda: Dual().check(Masked(tokens=TOKENS), 4), "goes by blocks of 4"),
    (lambda: Dual().check_network(latent=False, timed=True), "told the time"),
    (lambda: run(net_of("dit"), Dual(size=2), latent=Latent()), "the carried latent enters"),
    (lambda: run(net_of("causal"), Dual(size=2)), "blocks: a network that looks back"),
    (lambda: run(net_of("llada"), Dual(size=2), record=lambda s: s.z), "several"),
    (lambda: run(guide_prompt(net_of("llada"), gamma=2.0), Dual(size=2)), "there is one cache"),
]


def test_as_published_a_step_asks_about_the_block_alone():
    assert Dual(size=2) == Dual(size=2, ahead=0)


@pytest.mark.parametrize("make, why", REFUSED)
def test_what_is_refused(make, why):
    with pytest.raises((ValueError, UserError), match=why):
        make()


@pytest.mark.parametrize(
    "change, why",
    [
        (dict(causal=True), "looks back"),
        (dict(block=1), "looks back"),
        (dict(shift="start"), "start before the row"),
    ],
)
def test_other_networks_keep_none(change, why):
    model = dataclasses.replace(NETWORKS["llada"], **change)
    with pytest.raises(ValueError, match=why):
        model.bind({}).around(1, 4)
