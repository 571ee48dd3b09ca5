"""The DiT: kernels, segments, rematerialisation, types, axes, dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Attend, Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.denoisers.attention import by_platform, fused, kernel, plain, splash
from ldd_jax.denoisers.rotary import rotary
from tests.lab import jit, live_params

B, L = 3, 8
SIZES = dict(tokens=TokenSpace(size=7, mask=6), width=16, depth=2, heads=2, cond_width=8)
Z = jax.random.randint(jax.random.key(0), (B, L), 0, 7)
H = jax.random.normal(jax.random.key(1), (B, L, 16))


@pytest.fixture(scope="module")
def params():
    return live_params(DiT(**SIZES))


def loss_of(model, cond, key=None):
    def loss(params):
        denoiser = model.bind(params)
        trunk = denoiser.trunk(Z, cond, H, key=key)
        return jnp.sum(jnp.sin(denoiser.head(trunk.features))) + jnp.sum(trunk.latent**2)

    return jit(jax.value_and_grad(loss))


def close(a, b, tolerance=2e-5):
    scale = max(1.0, *(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(a)))
    equal = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)
    jax.tree.map(equal, a, b)


SEEN = {False: Attend(), True: Attend("causal")}


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("segments", [False, True])
def test_kernels_agree_with_gradients(segments, causal):
    q, k, v = jax.random.normal(jax.random.key(2), (3, B, L, 2, 8))
    segment = jnp.asarray([[1, 1, 1, 2, 2, 2, 0, 0]] * B)

    def solve(kernel):
        given = segment if segments else None
        return jax.value_and_grad(
            lambda *a: jnp.sum(jnp.cos(kernel(*a, given, SEEN[causal]) * jnp.arange(8.0))),
            argnums=(0, 1, 2),
        )(q, k, v)

    close(solve(plain), solve(fused))
    close(solve(plain), solve(by_platform))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("segments", "attend"),
    [
        (False, SEEN[False]),
        (True, SEEN[False]),
        (True, SEEN[True]),
        (True, Attend("block", size=24)),
        (False, Attend("doubled", size=24)),
    ],
    ids=["full", "documents", "causal", "block", "doubled"],
)
def test_the_pallas_kernel_agrees(segments, attend):
    """Splash attention, interpreted, forward and backward; padding rows mean nothing."""
    q, k, v = jax.random.normal(jax.random.key(7), (3, 2, 256, 2, 64))
    segment = jnp.repeat(jnp.asarray([[1, 2, 3, 0]] * 2), 64, axis=1) if segments else None
    real = 1.0 if segment is None else (segment > 0)[:, :, None, None].astype(jnp.float32)

    def solve(kernel):
        return jit(
            jax.value_and_grad(
                lambda *a: jnp.sum(real * jnp.cos(kernel(*a, segment, attend))),
                argnums=(0, 1, 2),
            )
        )(q, k, v)

    close(solve(plain), solve(partial(splash, interpret=True)), 1e-4)
    assert kernel("auto")(q, k, v, segment).shape == q.shape


@pytest.mark.slow
def test_rotary_depends_on_distance_only():
    q, k = jax.random.normal(jax.random.key(3), (2, 1, L, 1, 8))
    scores = lambda shift: jnp.einsum(
        "bqhk,bshk->bqs", *(rotary(a, jnp.arange(L) + shift) for a in (q, k))
    )
    close(scores(0), scores(11), 1e-5)
    assert float(jnp.max(jnp.abs(scores(0) - jnp.einsum("bqhk,bshk->bqs", q, k)))) > 0.1


@pytest.mark.slow
def test_packed_documents_do_not_see_each_other(params):
    model = DiT(**SIZES)
    segment = jnp.asarray([[1, 1, 1, 2, 2, 2, 2, 0]] * B)
    position = jnp.asarray([[0, 1, 2, 0, 1, 2, 3, 0]] * B)
    run = jit(lambda z, c, h: model.bind(params).trunk(z, c, h).features)
    packed = run(Z, Cond(segment=segment, position=position), H)
    alone = run(Z[:, 3:7], Cond(), H[:, 3:7])
    close(packed[:, 3:7], alone)
    other = Z.at[:, 0].set((Z[:, 0] + 1) % 7).at[:, 7].set((Z[:, 7] + 1) % 7)
    changed = run(other, Cond(segment=segment, position=position), H)
    np.testing.assert_array_equal(packed[:, 3:7], changed[:, 3:7])
    assert np.abs(changed[:, 1:3] - packed[:, 1:3]).max() > 1e-3


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"remat": "full"}, marks=pytest.mark.slow),
        pytest.param({"remat": "dots"}, marks=pytest.mark.slow),
        pytest.param({"attention": "fused"}, marks=pytest.mark.slow),
        {"remat": "full", "chunks": 2},
        pytest.param({"chunks": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_remat_and_kernel_change_nothing(params, change):
    expected = loss_of(DiT(**SIZES), Cond())(params)
    close(expected, loss_of(DiT(**SIZES, **change), Cond())(params))


def test_bfloat16_keeps_logits_in_float32(params):
    single, half = DiT(**SIZES), DiT(**SIZES, dtype="bfloat16")
    a, b = (jit(lambda p, m=m: m.bind(p).trunk(Z, Cond(), H))(params) for m in (single, half))
    assert b.features.dtype == b.latent.dtype == jnp.bfloat16
    logits = half.bind(params).head(b.features[0])
    assert logits.dtype == jnp.float32
    gap = np.abs(a.latent - b.latent).max()
    assert 1e-6 < gap < 0.05 * np.abs(a.latent).max()


@pytest.mark.parametrize("latent, narrow, classes", [(True, 0, 0), (True, 5, 0), (False, 0, 4)])
def test_axes_match_parameters(latent, narrow, classes):
    model = DiT(**SIZES, latent=latent, latent_width=narrow, num_classes=classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    is_axes = lambda a: isinstance(a, tuple)
    ranks = jax.tree.map(len, model.axes(), is_leaf=is_axes)
    assert ranks == jax.tree.map(lambda a: a.ndim, shapes)
    sizes: dict = {"width": 16, "vocabulary": 7, "cond": 8, "layer": 2, "features": 256}
    sizes["latent"] = narrow

    def check(axes, like):
        for name, size in zip(axes, like.shape):
            assert sizes.get(name, size) == size, (axes, like.shape)

    jax.tree.map(check, model.axes(), shapes, is_leaf=is_axes)


@pytest.mark.slow
def test_a_narrow_latent_adds_to_the_first_channels():
    """Against a network without latent whose table holds E(z) + LayerNorm(h) of every position."""
    narrow = DiT(**SIZES, latent_width=5)
    params, h = live_params(narrow), H[..., :5]
    norm = params["trunk"]["latent_norm"]["norm"]
    assert norm["scale"].shape == norm["bias"].shape == (5,)
    embedded, added = narrow.bind(params).parts(Z, h)
    centred = h - jnp.mean(h, -1, keepdims=True)
    scale = jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)
    fused = params["trunk"]["embed"]["table"][Z]
    fused = fused.at[..., :5].add(norm["scale"] * centred / scale + norm["bias"])
    close(embedded, params["trunk"]["embed"]["table"][Z], 0)
    close(embedded + added, fused, 1e-6)
    told = {k: v for k, v in params["trunk"].items() if k != "latent_norm"}
    told |= {"embed": {"table": fused.reshape(B * L, -1)}}
    places = DiT(**(SIZES | {"tokens": TokenSpace(size=B * L, mask=0)}), latent=False)
    run = jit(lambda p, z, h, m: m.bind({"trunk": p}).trunk(z, Cond(), h), static_argnums=3)
    found = run(params["trunk"], Z, h, narrow)
    close(found.features, run(told, jnp.arange(B * L).reshape(B, L), None, places).features)
    whole = {**params["trunk"], "latent_norm": {"norm": {k: jnp.zeros(16) for k in norm}}}
    dark = {**params["trunk"], "latent_norm": {"norm": {k: jnp.zeros(5) for k in norm}}}
    expected = run(whole, Z, None, DiT(**SIZES)).latent
    assert narrow.bind(params).latent(B, L).shape == found.latent.shape == (B, L, 5)
    close(run(dark, Z, None, narrow).latent, expected[..., :5], 1e-6)
    assert np.abs(found.latent - expected[..., :5]).max() > 1e-2


def test_a_latent_of_the_whole_width_is_the_model_without_the_field(params):
    run = jit(lambda p, m: m.bind(p).trunk(Z, Cond(), H), static_argnums=1)
    a, b = run(params, DiT(**SIZES)), run(params, DiT(**SIZES, latent_width=16))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert DiT(**SIZES).axes() == DiT(**SIZES, latent_width=16).axes()


@pytest.mark.slow
def test_dropout_follows_the_example(params):
    model = DiT(**SIZES, dropout=0.5)
    run = jit(lambda z, h, keys: model.bind(params).trunk(z, Cond(), h, key=keys).features)
    keys = jax.random.split(jax.random.key(5), B)
    out = run(Z, H, keys)
    order = jnp.asarray([2, 0, 1])
    close(out[order], run(Z[order], H[order], keys[order]), 1e-6)
    assert np.abs(out - run(Z, H, keys[order])).max() > 1e-2
    plain = DiT(**SIZES).bind(params).trunk(Z, Cond(), H).features
    close(plain, model.bind(params).trunk(Z, Cond(), H).features)


def test_what_a_network_has_no_input_for_is_refused(params):
    denoiser = DiT(**SIZES).bind(params)
    with pytest.raises(ValueError, match="no class label"):
        denoiser.trunk(Z, Cond(label=jnp.zeros(B, jnp.int32)))
    with pytest.raises(ValueError, match="takes no latent"):
        DiT(**SIZES, latent=False).bind(params).trunk(Z, Cond(), H)
    with pytest.raises(ValueError, match="clock is missing"):
        DiT(**SIZES, time_conditioning=True).bind(params).trunk(Z, Cond())
    with pytest.raises(ValueError, match="twice the 2 heads"):
        DiT(**(SIZES | {"width": 18}))
    for wrong in (-1, 17):
        with pytest.raises(ValueError, match=f"latent_width is {wrong}; it must lie between 1 and"):
            DiT(**SIZES, latent_width=wrong)
    with pytest.raises(ValueError, match="latent_width without a latent"):
        DiT(**SIZES, latent_width=5, latent=False)


def test_layers_are_not_all_alike(params):
    """The stacked blocks are used in order: swapping them changes the result."""
    model = DiT(**SIZES)
    swapped = jax.tree.map(lambda a: a, params)
    swapped["trunk"]["blocks"] = jax.tree.map(lambda a: a[::-1], params["trunk"]["blocks"])
    run = jit(lambda p: model.bind(p).trunk(Z, Cond(), H).features)
    assert np.abs(run(params) - run(swapped)).max() > 1e-3
