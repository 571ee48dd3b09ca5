from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldd_jax.config import experiment as experiments
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import section
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.training.optimizer import skipped
from ldd_jax.training.optimizers import OPTIMIZERS, Adafactor, AdamW, Lion, Muon
from ldd_jax.training.state import update_ema
from tests.training.common import experiment


def rates(steps, **settings):
    rate = AdamW(num_steps=100, lr=0.4, **settings).rate()
    return [float(rate(n)) for n in steps]


def test_constant_after_warm_up():
    found = rates([0, 1, 4, 9, 10, 50, 99], warmup_steps=10)
    np.testing.assert_allclose(found, [0.04, 0.08, 0.2, 0.4, 0.4, 0.4, 0.4], rtol=1e-6)


def test_cosine_after_warm_up():
    steps = np.array([10, 32.5, 55, 77.5, 100])
    found = rates(steps, warmup_steps=10, decay="cosine", floor=0.25)
    share = 0.5 * (1 + np.cos(np.pi * np.arange(5) / 4))
    np.testing.assert_allclose(found, 0.4 * (0.25 + 0.75 * share), rtol=1e-6)
    assert rates([5], warmup_steps=10, decay="cosine") == pytest.approx([0.4 * 0.6])


def test_linear_and_no_warm_up():
    found = rates([0, 50, 100, 150], warmup_steps=0, decay="linear", floor=0.5)
    np.testing.assert_allclose(found, [0.4, 0.3, 0.2, 0.2], rtol=1e-6)


def numpy_adamw(w, gradients, *, lr, b1, b2, eps, decay, clip):
    """The published update (arXiv 1711.05101), with clipping of the global norm before it."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for n, g in enumerate(gradients, 1):
        norm = np.sqrt((g**2).sum())
        g = g * min(1, clip / norm) if clip else g
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        hat_m, hat_v = m / (1 - b1**n), v / (1 - b2**n)
        w = w - lr * (hat_m / (np.sqrt(hat_v) + eps) + decay * w)
    return w


@pytest.mark.parametrize("clip", [0.0, 0.7, 1e3])
def test_update_is_clipped_adamw(clip, x64):
    draw = np.random.default_rng(0)
    w, gradients = draw.normal(size=6), draw.normal(size=(5, 6)) * [[1], [9], [0.1], [3], [1]]
    settings = dict(lr=0.05, b1=0.8, b2=0.95, eps=1e-6)
    optimizer = AdamW(weight_decay=0.1, clip_norm=clip, warmup_steps=0, **settings).make()
    params = {"a": jnp.asarray(w[:4]), "b": jnp.asarray(w[4:])}
    state = optimizer.init(params)
    for g in gradients:
        tree = {"a": jnp.asarray(g[:4]), "b": jnp.asarray(g[4:])}
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
    want = numpy_adamw(w, gradients, decay=0.1, clip=clip, **settings)
    np.testing.assert_allclose(np.concatenate([params["a"], params["b"]]), want, rtol=1e-10)


def test_moving_average():
    """d = min(decay, (1 + n) / (10 + n)); the first update moves by 1 - 2/11."""
    draw = np.random.default_rng(1)
    ema = want = draw.normal(size=3)
    for n in range(1, 60):
        p = draw.normal(size=3)
        d = min(0.8, (1 + n) / (10 + n))
        want = d * want + (1 - d) * p
        ema = update_ema(jnp.asarray(ema), jnp.asarray(p), jnp.asarray(n), 0.8)
    np.testing.assert_allclose(ema, want, rtol=1e-5)
    first = update_ema(jnp.zeros(1), jnp.ones(1), jnp.asarray(1), 0.9999)
    assert float(first[0]) == pytest.approx(9 / 11)


def test_moving_average_is_averaged_in_its_own_type():
    found = update_ema({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, jnp.asarray(5, jnp.int32), 0.5)
    assert jax.tree.map(lambda a: str(a.dtype), found) == {"w": "float32"}


def test_level_then_down():
    """wsd: the last fifth of the 90 updates after the warm-up falls in a straight line."""
    steps = [9, 50, 81, 82, 91, 100, 120]
    found = rates(steps, warmup_steps=10, decay="wsd", floor=0.1)
    line = [0.4 * (1 - 0.9 * k / 18) for k in (0, 9, 18)]
    np.testing.assert_allclose(found, [0.4, 0.4, 0.4, *line, 0.04], rtol=1e-6)
    assert rates([50], warmup_steps=0, decay="wsd", cooldown=1.0) == pytest.approx([0.2])


MATRICES = {
    "blocks": {"out": {"kernel": (2, 6, 4)}, "norm": {"scale": (2, 4)}},
    "embed": {"table": (5, 4)},
}


@pytest.fixture
def tree():
    """Parameters of a small stack, and gradients of them."""
    draw = np.random.default_rng(3)
    of = lambda: jax.tree.map(
        lambda shape: jnp.asarray(draw.normal(size=shape), jnp.float32),
        MATRICES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return of(), of()


def first(optimizer, params, gradients):
    rule = optimizer.make()
    return rule.update(gradients, rule.init(params), params)[0]


@pytest.mark.parametrize("kind", [Adafactor, AdamW, Lion, Muon])
def test_nothing_is_taken_off_what_is_named(kind, tree):
    """Without gradients only the decay moves, and not what `undecayed` names."""
    params, _ = tree
    still = jax.tree.map(jnp.zeros_like, params)
    given = dict(lr=0.5, weight_decay=0.1, warmup_steps=0, num_steps=9)
    moved = first(kind(undecayed=("*norm*", "*table"), **given), params, still)
    kernel = params["blocks"]["out"]["kernel"]
    np.testing.assert_allclose(moved["blocks"]["out"]["kernel"], -0.05 * kernel, rtol=1e-5)
    assert not moved["embed"]["table"].any() and not moved["blocks"]["norm"]["scale"].any()
    whole = first(kind(**given), params, still)
    np.testing.assert_allclose(whole["embed"]["table"], -0.05 * params["embed"]["table"], rtol=1e-5)
    with pytest.raises(UserError, match="optim.undecayed: no parameter is named like"):
        first(kind(undecayed=("*nothing",), **given), params, still)


def test_lion_moves_by_signs(tree):
    """c = b1 m + (1 - b1) g, m <- b2 m + (1 - b2) g; the step is the sign of c."""
    params, g = tree
    rule = Lion(lr=0.3, clip_norm=0, warmup_steps=0, num_steps=9).make()
    state = rule.init(params)
    one, state = rule.update(g, state, params)
    jax.tree.map(lambda u, x: np.testing.assert_allclose(u, -0.3 * np.sign(x)), one, g)
    other = jax.tree.map(lambda x: -0.05 * x, g)
    two, _ = rule.update(other, state, params)
    want = lambda x: -0.3 * np.sign(0.9 * 0.01 * x + 0.1 * -0.05 * x)
    jax.tree.map(lambda u, x: np.testing.assert_allclose(u, want(x)), two, g)


def test_muon_orthogonalises_each_matrix_of_a_stack(tree):
    """Singular values near .2 sqrt(max(m, n)) times lr; the others move as with AdamW."""
    params, g = tree
    given = dict(lr=0.5, clip_norm=0, warmup_steps=0, num_steps=9)
    moved = first(Muon(**given), params, g)
    for layer in range(2):
        matrix = moved["blocks"]["out"]["kernel"][layer]
        size = np.linalg.svd(matrix, compute_uv=False) / (0.5 * 0.2 * 6**0.5)
        assert (size > 0.6).all() and (size < 1.3).all(), size
        alone = {"blocks": {"out": {"kernel": params["blocks"]["out"]["kernel"][layer]}}}
        gradient = {"blocks": {"out": {"kernel": g["blocks"]["out"]["kernel"][layer]}}}
        again = first(Muon(**given), alone, gradient)["blocks"]["out"]["kernel"]
        np.testing.assert_allclose(matrix, again, rtol=2e-3, atol=1e-4)
    adam = first(AdamW(**given), params, g)
    np.testing.assert_allclose(moved["embed"]["table"], adam["embed"]["table"], rtol=1e-6)
    np.testing.assert_allclose(
        moved["blocks"]["norm"]["scale"], adam["blocks"]["norm"]["scale"], rtol=1e-6
    )


@pytest.mark.parametrize("rule", [Muon, Adafactor])
@pytest.mark.parametrize("stack", [(), (3,)])
def test_queries_keys_and_values_are_one_matrix(rule, stack):
    """[.., in, 3, heads, channels] moves as [.., in, out] does, a bias beside it too."""
    name = lambda kernel, bias: {"blocks": {"qkv": {"kernel": kernel, "bias": bias}}}
    draw = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(draw.normal(size=(*stack, *shape)), jnp.float32)
    heads = [name(make(5, 3, 2, 4), make(3, 2, 4)) for _ in range(2)]
    joined = lambda a, axes: a.reshape(*a.shape[: a.ndim - axes], -1)
    flat = [
        name(joined(t["blocks"]["qkv"]["kernel"], 3), joined(t["blocks"]["qkv"]["bias"], 3))
        for t in heads
    ]
    given = dict(lr=0.5, clip_norm=0, warmup_steps=0, num_steps=9)
    given |= dict(factored=4) if rule is Adafactor else {}
    found, want = (first(rule(**given), *trees) for trees in (heads, flat))
    same = lambda a, b: np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, found, want)


def test_adafactor_keeps_a_row_and_a_column(tree):
    """v = row col / mean(row), by the published rule; two updates, each layer by itself."""
    params, g = tree
    rule = Adafactor(lr=0.5, clip_norm=0, warmup_steps=0, num_steps=9, factored=4).make()
    state, stored = rule.init(params), jax.eval_shape(rule.init, params)
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(stored))
    assert sizes[-4:] == [5, 8, 8, 12]  # of 48 and 20 numbers: 2 x (6 + 4), 5 + 4; a norm's 8
    row, col = np.zeros((2, 6)), np.zeros((2, 4))
    for n, grad in enumerate((g, jax.tree.map(lambda x: -0.3 * x + 0.1, g)), 1):
        moved, state = rule.update(grad, state, params)
        x = np.asarray(grad["blocks"]["out"]["kernel"], np.float64)
        keep = 1 - n**-0.8
        row = keep * row + (1 - keep) * (x**2).mean(2)
        col = keep * col + (1 - keep) * (x**2).mean(1)
        v = row[:, :, None] * col[:, None] / row.mean(1)[:, None, None]
        want = x / np.sqrt(v)
        want /= max(1, np.sqrt((want**2).mean()))
        found = moved["blocks"]["out"]["kernel"]
        np.testing.assert_allclose(found, -0.5 * want, rtol=1e-4, atol=1e-5)


def test_what_is_smaller_than_its_parameter_is_whole_on_the_mesh():
    """Adafactor's rows and columns; Adam's moments lie as their parameters do."""
    shape = dict(mesh__data=2, mesh__fsdp=4, devices=[jax.devices()[0]] * 8)
    for name, fields in (("adafactor", dict(factored=8)), ("adamw", {})):
        built = experiment("mdlm", **shape)
        with built.config.unlocked():
            built.config.optim = section(OPTIMIZERS[name], **fields)
        built = experiments.build(built.config, built.tokenizer, built.mesh)
        state = built.abstract()
        places = lambda pick, s=state: {
            tuple(leaf.shape): leaf.sharding.spec
            for path, leaf in jax.tree_util.tree_leaves_with_path(s.opt_state)
            if pick in jax.tree_util.keystr(path) and "mlp_in" in jax.tree_util.keystr(path)
        }
        if name == "adafactor":
            assert {*places("v_row").values(), *places("v_col").values()} == {jax.P()}
        else:
            mine = state.params["trunk"]["blocks"]["mlp_in"]["kernel"]
            assert places(".nu")[mine.shape] == mine.sharding.spec != jax.P()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_state_on_the_mesh(name):
    """An update keeps its structure; moments may take half of the memory."""
    chosen = arguments(f"optim={name}", method="mdlm", size="tiny")
    config = make(chosen, optim=dict(lr=1e-3, b1=0.9, moments="bfloat16", decay="wsd"))
    assert config.optim.name == name and config.optim.lr == 1e-3 * OPTIMIZERS[name].pace
    assert f"optim={name}" in config.recipe
    built = experiments.build(config, CharacterTokenizer("abcd"))
    state = built.abstract()
    after = jax.eval_shape(lambda s: s.replace(opt_state=skipped(s.opt_state)), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state.opt_state))


def test_what_an_optimizer_refuses():
    for fields, said in (
        (dict(moments="int8"), "moments 'int8'"),
        (dict(variances="float16"), "variances 'float16'"),
        (dict(cooldown=0.0), r"cooldown is 0.0; it must lie in \(0, 1\]"),
        (dict(decay="step"), "decay 'step'"),
    ):
        with pytest.raises(ValueError, match=said):
            Lion(**fields)
    with pytest.raises(UserError, match="unknown optim 'sgd'"):
        arguments("optim=sgd", method="mdlm")
