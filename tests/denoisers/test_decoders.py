"""Llama and GPT-2: groups, shift, annealed masks, latent, cache, axes, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Attend, Cond, TokenSpace
from ldd_jax.denoisers import GPT2, Llama, frequencies
from ldd_jax.denoisers.attention import fused, plain
from ldd_jax.denoisers.decoder import Decoder
from tests.lab import first_params, jit, live_params

B, L, V = 3, 8, 7
NONE = Cond()
TOKENS = TokenSpace(size=V, mask=6)
SIZES = dict(tokens=TOKENS, width=16, depth=2, heads=4)
LLAMA = Llama(**SIZES, kv_heads=2, head_width=6, qkv_bias=True, qk_norm=True, latent=True)
SMALL = GPT2(**SIZES, positions=12, latent=True)
Z = jax.random.randint(jax.random.key(0), (B, L), 0, V)
H = jax.random.normal(jax.random.key(1), (B, L, 16))
BOTH = pytest.mark.parametrize("model", [LLAMA, SMALL], ids=["llama", "gpt2"])


def close(a, b, tolerance=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def out(model, params, z=Z, cond=NONE, h=None):
    """Logits and latent."""

    def run(params, z, cond, h):
        denoiser = model.bind(params)
        trunk = denoiser.trunk(z, cond, h)
        return denoiser.head(trunk.features), trunk.latent

    return jit(run)(params, z, cond, h)


def gradient(model, params, cond=NONE):
    def loss(params):
        denoiser = model.bind(params)
        trunk = denoiser.trunk(Z, cond, H)
        return jnp.sum(jnp.sin(denoiser.head(trunk.features))) + jnp.mean(trunk.latent**2)

    return jit(jax.value_and_grad(loss))(params)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [plain, fused])
def test_a_group_of_heads_shares_keys_and_values(kernel):
    q = jax.random.normal(jax.random.key(2), (B, L, 4, 6))
    k, v = jax.random.normal(jax.random.key(3), (2, B, L, 2, 6))
    spread = lambda a: a[:, :, jnp.asarray([0, 0, 1, 1])]
    close(kernel(q, k, v), kernel(q, spread(k), spread(v)), 1e-6)


@BOTH
def test_axes_match_parameters(model):
    tied = dataclasses.replace(model, time_conditioning=True)
    shapes = jax.eval_shape(tied.init, jax.random.key(0))
    rank = lambda axes, leaf: len(axes) == leaf.ndim
    right = jax.tree.map(rank, tied.axes(), shapes, is_leaf=lambda a: isinstance(a, tuple))
    assert all(jax.tree.leaves(right))
    assert tied.axes()["trunk"]["blocks"]["down"]["kernel"] == ("layer", "mlp", "width")


@pytest.mark.slow
@BOTH
def test_memory_and_kernel_change_nothing(model):
    params = live_params(model)
    cond = Cond(segment=jnp.asarray([[1, 1, 1, 2, 2, 2, 0, 0]] * B))
    kept = gradient(model, params, cond)
    for change in (dict(remat="full", chunks=3), dict(attention="fused", unroll=2)):
        close(kept, gradient(dataclasses.replace(model, **change), params, cond), 2e-4)


@pytest.mark.slow
def test_causal_at_share_0_and_full_at_share_1_to_the_bit():
    """The annealed mask at both ends is the network's own at the same shapes."""
    for model in (LLAMA, SMALL):
        params = live_params(model)
        at = lambda share: Cond(attend=Attend("annealed", share=share, key=jax.random.key(5)))
        causal, full = (out(dataclasses.replace(model, causal=c), params) for c in (True, False))
        same(out(model, params, cond=at(jnp.float32(0))), causal)
        same(out(model, params, cond=at(jnp.float32(1))), full)
        half = out(model, params, cond=at(jnp.float32(0.5)))
        assert np.abs(half[0] - causal[0]).max() > 1e-3 and np.abs(half[0] - full[0]).max() > 1e-3


def test_the_share_of_open_entries_and_one_draw_a_key():
    attend = Attend("annealed", share=jnp.float32(0.3), key=jax.random.key(0))
    mask = np.asarray(attend.drawn(200).mask)
    later = mask[~np.tri(200, dtype=bool)]
    assert mask[np.tri(200, dtype=bool)].all() and abs(later.mean() - 0.3) < 4 * 0.0033
    same(attend.drawn(200).mask, mask)
    with pytest.raises(ValueError, match="share and key"):
        Attend("full", share=jnp.float32(1), key=jax.random.key(0)).check()


@pytest.mark.slow
@BOTH
def test_shifted_with_a_start_it_is_the_autoregressive_network_to_the_bit(model):
    """At share 0: what a causal network says after (start, x_1 .. x_{i-1}) stands at i."""
    params = live_params(model)
    shifted = dataclasses.replace(model, shift="start", begin=2)
    closed = Cond(attend=Attend("annealed", share=jnp.float32(0), key=jax.random.key(5)))
    read = jnp.concatenate([jnp.full((B, 1), 2), Z], axis=1)
    logits, latent = out(dataclasses.replace(model, causal=True), params, read)
    same(out(shifted, params, cond=closed), (logits[:, :-1], latent[:, :-1]))


@BOTH
def test_repeated_the_first_row_speaks_twice(model):
    params = live_params(model)
    whole = out(model, params)
    moved = lambda a: jnp.concatenate([a[:, :1], a[:, :-1]], axis=1)
    same(out(dataclasses.replace(model, shift="repeat"), params), jax.tree.map(moved, whole))


@pytest.mark.parametrize("shift", ["repeat", "start"])
def test_the_first_position_of_a_document_is_predicted_in_its_own_document(shift):
    params = live_params(LLAMA)
    cond = Cond(segment=jnp.asarray([[1, 1, 1, 2, 2, 2, 2, 2]] * B))
    run = lambda z: out(dataclasses.replace(LLAMA, shift=shift), params, z, cond)[0]
    before, after = run(Z), run(Z.at[:, 1].set((Z[:, 1] + 1) % V))
    same(before[:, 3:], after[:, 3:])
    assert np.abs(before[:, :3] - after[:, :3]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("shift", ["none", "repeat", "start"])
def test_the_latent_enters_where_its_prediction_is(shift):
    """Causal, so that a change of h at place 4 is seen from the row on that shows token 4."""
    model = dataclasses.replace(LLAMA, shift=shift, causal=True)
    params = live_params(model)
    before, after = (out(model, params, h=h)[0] for h in (H, H.at[:, 4].add(jnp.arange(16.0))))
    moved = np.abs(before - after).max(axis=(0, 2)) > 1e-4
    first = 4 if shift == "none" else 5
    assert not moved[:first].any() and moved[first:].all()


@BOTH
def test_a_fresh_latent_changes_nothing(model):
    params = first_params(model)
    plain = dataclasses.replace(model, latent=False)
    less = {"trunk": {n: p for n, p in params["trunk"].items() if n != "latent_norm"}}
    expected = out(plain, less | {"head": params["head"]})[0]
    same(out(model, params, h=H)[0], expected)
    assert np.ptp(np.asarray(expected)) > 0


@pytest.mark.slow
@BOTH
def test_a_cache_gives_the_same_token_by_token(model):
    model = dataclasses.replace(model, causal=True, latent=False)
    params = live_params(model)
    whole = out(model, params)[0]

    def run(params):
        denoiser = model.bind(params)

        def one(cache, z):
            trunk = denoiser.trunk(z[:, None], Cond(), cache=cache)
            return trunk.cache, denoiser.head(trunk.features[:, 0])

        return jax.lax.scan(one, denoiser.cache(B, L), Z.T)[1].swapaxes(0, 1)

    close(jit(run)(params), whole, 5e-5)


@pytest.mark.slow
def test_it_is_told_the_time_only_when_asked():
    model = dataclasses.replace(LLAMA, time_conditioning=True)
    params = first_params(model)
    early, late = (Cond(clock=jnp.full(B, t)) for t in (0.1, 2.0))
    same(out(model, params, cond=early), out(model, params, cond=late))  # zero at first
    live = live_params(model)
    assert np.abs(out(model, live, cond=early)[0] - out(model, live, cond=late)[0]).max() > 1e-3
    with pytest.raises(ValueError, match="cond.clock is missing"):
        model.bind(live).trunk(Z, Cond())


def test_part_of_a_head_is_turned():
    """Of 6 channels 4: the others do not know positions."""
    model = dataclasses.replace(LLAMA, rope_fraction=0.7)
    assert model.channels == 4 and model.place(jnp.arange(5))[0].shape == (5, 2)


def test_scaled_frequencies_at_their_ends():
    """Linear divides all; llama3 and YaRN keep the shortest wave and divide the longest."""
    last = jnp.asarray(63)
    found = frequencies.plain(64, 10_000.0)
    for rule in (frequencies.Llama3(factor=8.0), frequencies.Yarn(factor=8.0)):
        scaled, factor = rule(64, 10_000.0, last)
        close(scaled[0], found[0], 0)
        np.testing.assert_allclose(scaled[-1], found[-1] / 8, rtol=1e-6)
        assert (np.diff(scaled) < 0).all() and factor >= 1
    dynamic = frequencies.Dynamic(factor=2.0, original=64)
    np.testing.assert_allclose(dynamic(64, 10_000.0, last)[0], found, rtol=1e-6)
    assert dynamic(64, 10_000.0, jnp.asarray(127))[0][-1] < 0.4 * found[-1]


def test_bfloat16_parameters_and_activations():
    model = dataclasses.replace(LLAMA, dtype="bfloat16", param_dtype="bfloat16")
    params = first_params(model)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    logits, latent = out(model, params)
    assert logits.dtype == jnp.float32 and latent.dtype == jnp.bfloat16


def test_what_is_refused():
    for fields, why in (
        (dict(heads=3), "no multiple"),
        (dict(kv_heads=3), "do not divide"),
        (dict(shift="left"), "not one of"),
        (dict(begin=7), "states"),
        (dict(rope_fraction=0.0), "rope_fraction"),
        (dict(param_dtype="int8"), "param_dtype"),
    ):
        with pytest.raises(ValueError, match=why):
            Llama(**SIZES | fields)
    params = first_params(SMALL)
    with pytest.raises(UserError, match="longer than the 12 positions"):
        SMALL.bind(params).trunk(jnp.zeros((1, 13), jnp.int32), Cond())
    with pytest.raises(UserError, match="keeps no cache"):
        SMALL.bind(params).cache(1, 4)


def test_a_decoder_knows_its_family_in_transformers():
    found = [GPT2(), Llama(), Llama(qkv_bias=True), Llama(qk_norm=True)]
    assert [model.family() for model in found] == ["gpt2", "llama", "qwen2", "qwen3"]
    with pytest.raises(UserError, match="qkv_bias and model.qk_norm"):
        Llama(qkv_bias=True, qk_norm=True).family()
    with pytest.raises(UserError, match="transformers has no network 'llama'; give --names=own"):
        Decoder.family(Llama())  # what one without a family says
