"""What is carried and where it enters; loops through the blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import (
    DiT,
    EntropyMix,
    Hidden,
    Linear,
    Llama,
    SignalDiT,
    SoftFfn,
    SoftMask,
)
from ldd_jax.denoisers import carry as module
from tests.lab import jit, live_params

B, L, V, D = 2, 5, 9, 16
TOKENS = TokenSpace(size=V, mask=3)
PLAIN = dict(tokens=TOKENS, width=D, depth=1, heads=2, cond_width=8)
Z = jnp.asarray([[3, 0, 3, 5, 8], [7, 3, 3, 1, 4]])
COND = Cond(clock=jnp.linspace(0.3, 1.0, B))
KINDS = [SoftMask(), EntropyMix(), SoftFfn()]


def decoder(**fields):
    """A pretrained family's network, which predicts the position after a row."""
    return Llama(tokens=TOKENS, width=D, depth=1, heads=2, latent=True, shift="start", **fields)


def params_of(model, seed=0):
    """Numbers everywhere, also where the network begins with zeros."""
    return live_params(model, scale=0.3)


def called(model, params, h=None, cond=COND):
    return jit(lambda params, h, cond: model.bind(params).trunk(Z, cond, h))(params, h, cond)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [*(DiT(**PLAIN, carry=kind) for kind in KINDS), decoder(carry=SoftMask())],
    ids=lambda m: f"{type(m).__name__}-{type(m.carry).__name__}",
)
def test_a_soft_signal_is_that_of_the_prediction(model, monkeypatch):
    kind, params = model.carry, params_of(model)
    out = called(model, params)
    bias = params["head"].get("bias", 0)
    logits = np.array(out.features @ params["head"]["kernel"] + bias, np.float64)
    logits[..., 3] = -np.inf
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    entropy = -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), -1)
    table = np.asarray(params["trunk"]["embed"]["table"], np.float64)
    if kind.top_k:
        p = np.where(p >= np.sort(p, -1)[..., -kind.top_k][..., None], p, 0)
        p /= p.sum(-1, keepdims=True)
    want = np.concatenate([p @ table, np.ones((B, L, 1)), entropy[..., None]], -1)
    np.testing.assert_allclose(out.latent, want, atol=2e-5)
    monkeypatch.setattr(module, "AUTO", 3)  # tiles of three rows
    np.testing.assert_allclose(called(model, params).latent, out.latent, atol=1e-6)
    assert model.bind(params).latent(B, L).shape == out.latent.shape
    assert 0.1 < entropy.std() + entropy.mean() < 3


def entering(kind, params, x, h):
    """By hand, float64."""
    soft, entropy = h[..., :D], h[..., D + 1 :]
    own = jax.tree.map(np.float64, params["trunk"].get("latent_norm", {}))
    if isinstance(kind, SoftMask):
        weight = own["scale"] / (1 + np.exp(own["rate"] * (entropy + own["shift"])))
        return weight * (soft - x)
    if isinstance(kind, EntropyMix):
        return entropy / np.log(V - 1) * (soft - x)
    y = soft / np.sqrt((soft**2).mean(-1, keepdims=True) + 1e-5) * own["norm"]["scale"]
    y = np.asarray(jax.nn.gelu(y @ own["in"]["kernel"] + own["in"]["bias"]), np.float64)
    return y @ own["out"]["kernel"] + own["out"]["bias"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_how_it_enters(kind):
    model = DiT(**PLAIN, carry=kind)
    params = params_of(model)
    h = np.asarray(called(model, params).latent, np.float64)
    x, fused = jit(lambda h: model.bind(params).parts(Z, h))(jnp.asarray(h, jnp.float32))
    want = entering(kind, params, np.asarray(x, np.float64), h)
    np.testing.assert_allclose(fused, want, atol=2e-5)
    assert np.abs(want).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: type(k).__name__)
def test_nothing_carried_is_the_network_without(kind):
    model, base = DiT(**PLAIN, carry=kind), DiT(**PLAIN, latent=False)
    params = params_of(model)
    own = {n: p for n, p in params["trunk"].items() if n != "latent_norm"}
    want = called(base, params | {"trunk": own}).features
    run = lambda params, h: called(model, params, h).features
    zeros = model.bind(params).latent(B, L)
    np.testing.assert_allclose(run(params, zeros), want, atol=2e-5)
    np.testing.assert_allclose(run(params, None), want, atol=2e-5)
    signal = called(model, params).latent
    assert np.abs(run(params, signal) - want).max() > 1e-3
    if not isinstance(kind, EntropyMix):  # which has no parameter that could be zero
        read = jit(model.init)(jax.random.key(0))["trunk"]["latent_norm"]
        fresh = params | {"trunk": params["trunk"] | {"latent_norm": read}}
        np.testing.assert_array_equal(run(fresh, signal), run(fresh, zeros))


@pytest.mark.parametrize("kind", [Hidden(), *KINDS], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("network", [lambda **f: DiT(**PLAIN, **f), decoder], ids=["dit", "llama"])
def test_axes_name_every_parameter(kind, network):
    model = network(carry=kind)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    fits = lambda axes, leaf: len(axes) == len(leaf.shape)
    same = jax.tree.map(fits, model.axes(), shapes, is_leaf=lambda a: isinstance(a, tuple))
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Hidden(), SoftMask()], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("network", [lambda **f: DiT(**PLAIN, **f), decoder], ids=["dit", "llama"])
def test_at_masked_positions_only(kind, network):
    model = network(carry=kind, carry_at="masked")
    params = params_of(model)
    h = called(model, params).latent
    masked = np.asarray(Z == 3)[..., None]
    other = h + 0.1 * jnp.arange(h.shape[-1])
    run = lambda h: called(model, params, h).features
    np.testing.assert_array_equal(run(h), run(jnp.where(masked, h, other)))
    assert np.abs(run(h) - run(jnp.where(masked, other, h))).max() > 1e-4
    everywhere = dataclasses.replace(model, carry_at="all")
    assert np.abs(run(h) - called(everywhere, params, h).features).max() > 1e-4


def deep(params, times):
    """The parameters of `times` blocks that are all the same."""
    again = lambda a: jnp.repeat(a, times, axis=0)
    trunk = params["trunk"] | {"blocks": jax.tree.map(again, params["trunk"]["blocks"])}
    return params | {"trunk": trunk}


@pytest.mark.slow
def test_loops_are_a_deeper_network_of_equal_blocks():
    model = DiT(**PLAIN, loops=3)
    params = params_of(model)
    assert jax.tree.structure(params) == jax.tree.structure(params_of(DiT(**PLAIN)))

    by = lambda u: COND._replace(chance=jnp.asarray(u))
    stacked = lambda n: (DiT(**{**PLAIN, "depth": n}), deep(params, n))
    found = {n: called(*stacked(n)).features for n in (1, 2, 3)}
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)
    close(called(model, params).features, found[3])
    for u, n in ((0.0, 1), (0.34, 2), (0.99, 3)):
        close(called(model, params, cond=by(u)).features, found[n])
    least = dataclasses.replace(model, least_loops=2)
    close(called(least, params, cond=by(0.0)).features, found[2])
    assert np.abs(found[3] - found[1]).max() > 1e-3

    def slope(model, cond, times):
        loss = lambda p: jnp.sum(model.bind(deep(p, times)).trunk(Z, cond).features ** 2)
        return jit(jax.grad(loss))(params)

    jax.tree.map(close, slope(model, by(0.34), 1), slope(stacked(2)[0], COND, 2))


@pytest.mark.slow
def test_loops_have_dropout_of_their_own():
    model = DiT(**PLAIN, loops=2, dropout=0.5)
    params = params_of(model)
    keys = jax.random.split(jax.random.key(0), B)
    once = jit(lambda p: model.bind(p).trunk(Z, COND, key=keys).features)(params)
    twin = DiT(**{**PLAIN, "depth": 2, "dropout": 0.5})
    twice = jit(lambda p: twin.bind(p).trunk(Z, COND, key=keys).features)(deep(params, 2))
    assert np.abs(once - twice).max() > 1e-3 and np.all(np.isfinite(once))


@pytest.mark.parametrize(
    "fields, why",
    [
        (dict(carry_at="revealed"), "not one of all, masked"),
        (dict(carry_at="masked", latent=False), "set it True"),
        (dict(carry=SoftMask(), latent=False), "set it True"),
        (dict(carry=SoftFfn(), latent_width=4), "as wide as the network"),
        (dict(carry=SoftMask(), input=Linear()), "tokens that enter by a table"),
        (dict(carry_at="masked", tokens=TokenSpace(size=V)), "has no mask"),
        (dict(loops=0), "loops is 0"),
        (dict(loops=2, least_loops=3), "the least are at most the loops"),
        (dict(loops=2, causal=True), "a causal network has one"),
    ],
)
def test_refusals(fields, why):
    with pytest.raises(ValueError, match=why):
        DiT(**{**PLAIN, **fields})


def test_more_refusals():
    with pytest.raises(ValueError, match="tokens that enter by a table"):
        SignalDiT(**PLAIN, carry_at="masked")
    with pytest.raises(ValueError, match="top_k is -1"):
        SoftMask(top_k=-1)
    with pytest.raises(ValueError, match="no loops to draw"):
        model = DiT(**PLAIN)
        model.bind(params_of(model)).trunk(Z, COND._replace(chance=jnp.zeros(())))
