"""Losses of a sampler with a target: values, weights and gradients against enumeration."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.objectives import LogVariance, NoContext, PseudoContext, Stages, Wdce
from ldd_jax.objectives.rollouts import Buffer
from ldd_jax.oracle.laws import states
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Rollouts
from ldd_jax.targets import Ising
from tests.lab import jit, live_params

TARGET = Ising(side=2, beta=0.4)
L, V = TARGET.sites, 2
TOKENS = TokenSpace(size=3, mask=2)
PROCESS = Masked(tokens=TOKENS)
FACTS = dict(
    process=PROCESS, target=TARGET, rollouts=Rollouts(process=PROCESS), num_classes=0, dropout=False
)
X = jnp.asarray(states(V, L))


def model_of(latent=False):
    return DiT(tokens=TOKENS, width=8, depth=1, heads=2, adaln=False, latent=latent)


def batch_of(rows, step=0):
    blank = jnp.zeros((rows, L), jnp.int32)
    ones = jnp.ones((rows, L))
    return Batch(
        blank, ones < 0, ones, Cond(), jnp.arange(rows), rows, jnp.asarray(rows * L * 1.0), step
    )


def log_p(model, params, z):
    """log x_theta at every site of states z [N, L], for tokens 0 and 1; no latent."""
    denoiser = model.bind(params)
    logits = denoiser.head(denoiser.trunk(z, Cond()).features.reshape(-1, 8))
    return jax.nn.log_softmax(logits[:, :V]).reshape(*z.shape, V)


def at(logp, x):
    return jnp.take_along_axis(logp, x[..., None], -1)[..., 0]


def test_weights_are_a_softmax_over_the_whole_batch_and_rollouts_are_kept():
    """B w at every site; the buffer is new at multiples of `every`; W of thousands does no harm."""
    objective = Wdce(every=3, warmup=Stages(factors=(0.5,), updates=4), **FACTS)
    model = model_of()
    denoiser, rows = model.bind(live_params(model)), 16
    shapes = objective.aux(rows, L)
    assert shapes.x.shape == (rows, L) and shapes.nats.shape == (rows,)
    run = jit(lambda aux, step, key: objective.drawn(denoiser, batch_of(rows, step), aux, key))
    first = Buffer(X, jnp.linspace(2000, 2003, rows), TARGET.log_weight(X))
    aux, batch = run(first, 1, jax.random.key(0))
    for a, b in zip(aux, first):
        np.testing.assert_array_equal(a, b)
    w = np.exp(np.asarray(0.5 * first.log_weight + first.nats - 2000, np.float64))
    np.testing.assert_allclose(batch.weight, np.tile(w[:, None] / w.mean(), L), rtol=2e-4)
    np.testing.assert_array_equal(batch.z0, X)
    _, cold = run(first, 5, jax.random.key(0))  # after the warm-up the same rollouts weigh anew
    w = np.exp(np.asarray(first.log_weight + first.nats - 2000, np.float64))
    np.testing.assert_allclose(cold.weight[:, 0], w / w.mean(), rtol=2e-4)
    new, batch = run(first, 3, jax.random.key(7))
    assert not np.array_equal(new.x, first.x) and (np.asarray(new.x) < 2).all()
    np.testing.assert_array_equal(batch.z0, new.x)
    np.testing.assert_allclose(new.log_weight, TARGET.log_weight(new.x), rtol=1e-6)
    other, _ = run(first, 3, jax.random.key(8))
    assert not np.array_equal(new.x, other.x)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [0, 7])
def test_wdce_and_its_gradient_are_those_of_all_masks(tile):
    """Every configuration, every subset of m sites with weight L / m, m uniform; MC against it."""
    model = model_of()
    params = live_params(model)
    weight = jax.nn.softmax(jnp.linspace(-1, 1, len(X)))

    every = np.array(list(itertools.product([False, True], repeat=L)))[1:]
    m = every.sum(1)
    share = 1 / (m * np.bincount(m)[m] * L)  # (1 / L) sum over m, times L / m, a site

    def exact(params):
        on, x = jnp.repeat(jnp.asarray(every), len(X), 0), jnp.tile(X, (len(every), 1))
        ce = -at(log_p(model, params, jnp.where(on, 2, x)), x)
        by_mask = jnp.sum(jnp.where(on, ce, 0), 1).reshape(len(every), len(X)) @ weight
        return jnp.asarray(share, jnp.float32) @ by_mask

    objective = Wdce(replicates=3, tile=tile, **FACTS)
    batch = batch_of(len(X))._replace(z0=X, weight=len(X) * jnp.tile(weight[:, None], L))

    def one(key):
        return jax.value_and_grad(lambda p: objective(model.bind(p), batch, key).total)(params)

    keys = jax.random.split(jax.random.key(5), 400)
    value, gradient = jit(lambda keys: jax.lax.map(one, keys))(keys)
    expected, slope = jit(jax.value_and_grad(exact))(params)
    assert abs(value.mean() - expected) < 4 * value.std() / 20
    near = jax.tree.map(
        lambda g, e: np.asarray(jnp.abs(g.mean(0) - e) / (g.std(0) / 20 + 1e-7)).ravel(),
        gradient,
        slope,
    )
    sigmas = np.concatenate(jax.tree.leaves(near))
    assert sigmas.max() < 5.5 and np.mean(sigmas > 2) < 0.1
    assert max(float(jnp.abs(e).max()) for e in jax.tree.leaves(slope)) > 0.01


@pytest.mark.slow
def test_no_replicate_is_fully_visible_and_half_look_from_the_other_end():
    """m runs over 1 .. L evenly; odd replicates show what even ones hide first."""
    seen = []

    class Spy(Masked):
        def mask_at(self, z, where):
            seen.append(where)
            return super().mask_at(z, where)

    facts = FACTS | {"process": Spy(tokens=TOKENS)}
    model = model_of()
    objective, batch = Wdce(replicates=4, **facts), batch_of(16)._replace(z0=X)
    objective(model.bind(live_params(model)), batch, jax.random.key(1))
    hidden = np.asarray(seen[0]).reshape(16, 4, L)
    counts = hidden.sum(-1)
    assert np.bincount(counts.ravel(), minlength=5).tolist() == [0, 16, 16, 16, 16]
    even, odd = hidden[:, 0::2], hidden[:, 1::2]
    few = even.sum(-1) + odd.sum(-1) <= L
    assert few.any() and not (even & odd).any(-1)[few].any()


def costs(model, params, x, order):
    """nats of paths without a latent, call by call."""
    total = 0.0
    for call in range(L):
        z = jnp.where(order < call, x, 2)
        total -= jnp.sum(jnp.where(order == call, at(log_p(model, params, z), x), 0), 1)
    return total


def test_the_loss_of_log_variance_is_the_variance_of_its_paths():
    """Of W, which the paths brought along, whatever the network says of them now."""
    objective, model, rows = LogVariance(**FACTS), model_of(), 6
    w = np.random.default_rng(0).normal(0, 2, rows)
    order = jnp.tile(jnp.arange(L), (rows, 1))
    batch = batch_of(rows)._replace(drawn=(order, jnp.asarray(w - w.mean(), jnp.float32)))
    loss = jit(lambda p: objective(model.bind(p), batch, jax.random.key(0)))(live_params(model))
    np.testing.assert_allclose(loss.total, w.var(ddof=1), rtol=1e-5)


@pytest.mark.slow
def test_log_variance_is_the_variance_and_has_its_gradient():
    """On the paths that are drawn, against a direct evaluation of Var(W)."""
    model, rows = model_of(), 12
    params = live_params(model)
    objective = LogVariance(**FACTS)

    @jit
    def both(params, key):
        aux, batch = objective.drawn(model.bind(params), batch_of(rows), (), key)
        loss = lambda p: objective(model.bind(p), batch, key).total
        w = lambda p: TARGET.log_weight(batch.z0) + costs(model, p, batch.z0, batch.drawn[0])
        direct = lambda p: jnp.var(w(p), ddof=1)
        return jax.value_and_grad(loss)(params), jax.value_and_grad(direct)(params), aux

    (value, slope), (expected, wanted), aux = both(params, jax.random.key(2))
    assert aux == () and float(value) == pytest.approx(float(expected), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), slope, wanted)
    with pytest.raises(UserError, match=r"two rollouts; training.batch_size is 1"):
        objective.aux(1, L)


@pytest.mark.slow
def test_log_variance_on_average_is_that_of_all_paths():
    """Var of W over all 24 orders and 16 configurations under the sampler, held fixed."""
    model, rows = model_of(), 64
    params = live_params(model)
    objective = LogVariance(**FACTS)
    orders = jnp.asarray(list(itertools.permutations(range(L))))
    order, x = jnp.repeat(orders, len(X), 0), jnp.tile(X, (len(orders), 1))

    def exact(params):
        nats = costs(model, params, x, order)
        p = jax.lax.stop_gradient(jnp.exp(-nats)) / len(orders)
        w = TARGET.log_weight(x) + nats
        return jnp.sum(p * (w - jnp.sum(p * w)) ** 2)

    def one(key):
        _, batch = objective.drawn(model.bind(params), batch_of(rows), (), key)
        return jax.value_and_grad(lambda p: objective(model.bind(p), batch, key).total)(params)

    keys = jax.random.split(jax.random.key(3), 400)
    value, gradient = jit(lambda keys: jax.lax.map(one, keys))(keys)
    expected, slope = jit(jax.value_and_grad(exact))(params)
    assert abs(value.mean() - expected) < 4 * value.std() / 20
    sigmas = [
        np.asarray(jnp.abs(g.mean(0) - e) / (g.std(0) / 20 + 1e-6)).ravel()
        for g, e in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope))
    ]
    assert np.concatenate(sigmas).max() < 5.5


@pytest.mark.slow
def test_gradients_go_through_the_carried_latent():
    """With the latent along the path its norm's parameters have a gradient; off, they have none."""
    model = model_of(latent=True)
    params = live_params(model)

    def slope(carry):
        objective = LogVariance(carry=carry, **FACTS)

        def run(params, key):
            _, batch = objective.drawn(model.bind(params), batch_of(8), (), key)
            return jax.grad(lambda p: objective(model.bind(p), batch, key).total)(params)

        return jit(run)(params, jax.random.key(4))["trunk"]["latent_norm"]["norm"]["scale"]

    assert np.abs(slope(True)).max() > 1e-3
    np.testing.assert_array_equal(slope(False), 0)


def test_stages():
    stages = Stages(factors=(0.5, 0.75), updates=10)
    assert [float(stages(jnp.asarray(n))) for n in (0, 4, 5, 9, 10, 99)] == [
        0.5, 0.5, 0.75, 0.75, 1.0, 1.0,
    ]  # fmt: skip
    assert float(Stages()(3)) == 1
    for wrong in (dict(factors=(0.5,)), dict(updates=3), dict(factors=(0.0,), updates=3)):
        with pytest.raises(ValueError, match=r"factors are"):
            Stages(**wrong)


@pytest.mark.parametrize(
    "cls, more, words",
    [
        (Wdce, dict(latent=True, context=NoContext()), "set objective.context to pseudo"),
        (LogVariance, dict(latent=True, context=PseudoContext()), "context must be 'none'"),
        (LogVariance, dict(dropout=True), "set model.dropout to 0"),
        (Wdce, dict(replicates=0), "replicates is 0"),
        (Wdce, dict(every=0), "every is 0"),
        (Wdce, dict(tile=-2), "tile is -2"),
        (Wdce, dict(num_classes=3), "no classes"),
        (Wdce, dict(process=Uniform(tokens=TokenSpace(size=2))), "needs masked diffusion"),
    ],
)
def test_what_no_sampler_of_a_target_can_do(cls, more, words):
    with pytest.raises(ValueError, match=words):
        cls(**{**FACTS, **more})


def test_where_the_latent_may_be_carried():
    """Along a path by log_variance; in rollouts of a wdce that trains with a pseudo-context."""
    assert LogVariance(latent=True, **FACTS).carry
    assert Wdce(latent=True, context=PseudoContext(), **FACTS).carry
    assert not Wdce(latent=True, carry=False, **FACTS).carry
