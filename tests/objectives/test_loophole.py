"""The loophole in training: initial identity, stopped gradient, gates, microbatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.objectives import (
    BatchGate,
    ExampleGate,
    FractionGate,
    Nelbo,
    NoContext,
    PseudoContext,
)
from ldd_jax.objectives.context import iterated
from ldd_jax.processes import Masked, Uniform
from tests.lab import first_params, jit, live_params

B, L = 8, 6
TOKENS = TokenSpace(size=9, mask=3)
MODEL = DiT(tokens=TOKENS, width=16, depth=1, heads=2, cond_width=8, time_conditioning=True)
BASE = DiT(
    tokens=TOKENS, width=16, depth=1, heads=2, cond_width=8, time_conditioning=True, latent=False
)
PROCESSES = {"masked": Masked(tokens=TOKENS), "uniform": Uniform(tokens=TOKENS)}


def batch_of(n=B, seed=0):
    rng = np.random.default_rng(seed)
    z0 = jnp.asarray(rng.integers(4, 9, (n, L)), jnp.int32)
    keep = jnp.asarray(rng.uniform(size=(n, L)) < 0.2)
    weight = jnp.asarray(~keep, jnp.float32)
    return Batch(
        z0=z0,
        keep=keep,
        weight=weight,
        cond=Cond(),
        index=jnp.arange(n),
        total=n,
        norm=jnp.sum(weight),
    )


def solve(objective, model, params, batch, key):
    def loss(params):
        out = objective(model.bind(params), batch, key)
        return out.total, out.metrics

    return jit(jax.value_and_grad(loss, has_aux=True))(params)


def close(a, b, rtol=2e-5, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def gap(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(*map(jax.tree.leaves, (a, b))))


def test_at_initialisation_the_latent_changes_no_bit():
    params = first_params(MODEL, jax.random.key(0))
    base = first_params(BASE, jax.random.key(0))
    rng = np.random.default_rng(0)
    # A head and gates that are not zero, so that equality says something.
    for tree in (params, base):
        tree["head"]["kernel"] = jnp.asarray(rng.normal(size=(16, 9)), jnp.float32)
        tree["trunk"]["blocks"]["adaln"]["bias"] += 0.5
        rng = np.random.default_rng(0)
    z = jax.random.randint(jax.random.key(1), (B, L), 0, 9)
    cond = Cond(clock=jnp.linspace(0.1, 3, B))

    @jit
    def logits(denoiser, h):
        return denoiser.head(denoiser.trunk(z, cond, h).features)

    zero = logits(MODEL.bind(params), None)
    wild = logits(MODEL.bind(params), 10 * jax.random.normal(jax.random.key(2), (B, L, 16)))
    np.testing.assert_array_equal(zero, wild)
    np.testing.assert_array_equal(zero, logits(BASE.bind(base), None))
    params["trunk"]["latent_norm"]["norm"]["scale"] += 0.1
    h = jax.random.normal(jax.random.key(2), (B, L, 16))
    moved = h.at[:, 0].add(1.0 + jnp.arange(16.0))
    change = logits(MODEL.bind(params), h) - logits(MODEL.bind(params), moved)
    assert np.abs(change[:, 1:]).max() > 1e-4  # the latent of one place reaches the others


@pytest.mark.parametrize(
    "name, gate",
    [
        ("masked", BatchGate()),
        pytest.param("uniform", ExampleGate(), marks=pytest.mark.slow),
    ],
)
def test_p_zero_is_the_plain_objective(name, gate):
    params, batch, key = live_params(MODEL), batch_of(), jax.random.key(3)
    objective = lambda context: Nelbo(process=PROCESSES[name], context=context)
    plain = solve(objective(NoContext()), MODEL, params, batch, key)
    close(plain, solve(objective(PseudoContext(p=0.0, gate=gate)), MODEL, params, batch, key))
    one = jit(lambda p: objective(PseudoContext(p=1.0))(MODEL.bind(p), batch, key).total)
    assert abs(float(one(params) - plain[0][0])) > 1e-4


@pytest.mark.slow
def test_gradient_treats_the_context_as_a_constant():
    params, batch = live_params(MODEL), batch_of()
    process, gate_key = PROCESSES["masked"], jax.random.key(0)
    z, clock = jnp.where(batch.keep, batch.z0, 3), jnp.linspace(0.2, 0.9, B)
    cond = Cond(clock=process.conditioning(clock))
    h0 = MODEL.bind(params).trunk(z, cond).latent

    def loss(context):
        objective = Nelbo(process=process, context=context)
        score = lambda p: (
            objective.score(MODEL.bind(p), batch, z, clock, jnp.ones(B), gate_key, None).total
        )
        return score, jit(jax.value_and_grad(score))(params)

    score, stopped = loss(PseudoContext(p=1.0))
    close(stopped, loss(lambda *_: h0)[1])
    _, full = loss(PseudoContext(p=1.0, gradient=True))
    close(stopped[0], full[0])
    assert gap(stopped[1], full[1]) > 1e-3

    # Finite differences along a direction see pass 1; only `gradient=True` agrees with them.
    rng = np.random.default_rng(1)
    v = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), params)
    dot = lambda g: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, g, v)))
    step = 1e-3
    move = lambda e: jax.tree.map(lambda a, b: a + e * b, params, v)
    run = jit(score)
    finite = (run(move(step)) - run(move(-step))) / (2 * step)
    np.testing.assert_allclose(finite, dot(full[1]), rtol=2e-2)
    assert abs(finite - dot(stopped[1])) > 10 * abs(finite - dot(full[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, gate",
    [
        ("masked", BatchGate()),
        ("uniform", ExampleGate()),
        ("masked", ExampleGate()),
        ("uniform", BatchGate()),
        ("uniform", FractionGate(group=4)),
    ],
)
def test_microbatches_add_up(name, gate):
    """Two halves, keyed by global index, give the full batch's loss and gradients."""
    params, batch = live_params(MODEL), batch_of()
    objective = Nelbo(process=PROCESSES[name], context=PseudoContext(p=0.5, gate=gate), tile=5)

    @jit
    def run(params, z0, keep, weight, index, key):
        micro = Batch(z0, keep, weight, Cond(), index, B, batch.norm)

        def loss(params):
            out = objective(MODEL.bind(params), micro, key)
            return out.total, out.metrics

        return jax.value_and_grad(loss, has_aux=True)(params)

    for seed in (0, 1, 2):
        cut = lambda i: (a[i] for a in (batch.z0, batch.keep, batch.weight, batch.index))
        key = jax.random.key(seed)
        (total, metrics), grads = run(params, *cut(slice(None)), key)
        halves = [run(params, *cut(slice(i, i + B // 2)), key) for i in (0, B // 2)]
        close(total, halves[0][0][0] + halves[1][0][0], rtol=1e-6)
        each = jnp.concatenate([h[0][1]["loss_B"] for h in halves])
        close(metrics["loss_B"], each, rtol=1e-5)
        close(grads, jax.tree.map(jnp.add, halves[0][1], halves[1][1]), rtol=1e-5, atol=1e-6)


class Spy:
    """A denoiser whose latent is one, so that the context shows who took part."""

    def latent(self, batch, length):
        return jnp.zeros((batch, length, 1))

    def trunk(self, z, cond, h=None, *, key=None):
        from ldd_jax.core.types import Trunk

        return Trunk(features=None, latent=jnp.ones((*z.shape, 1)) + (0 if h is None else h))


jax.tree_util.register_pytree_node(Spy, lambda _: ((), None), lambda *_: Spy())


def who(context, n, key):
    z = jnp.zeros((n, 2), jnp.int32)
    return np.asarray(context(Spy(), z, Cond(), None, key, jnp.arange(n))[:, 0, 0])


def test_participation():
    p, n = 0.7, 200
    batch = jit(lambda k: who_traced(PseudoContext(p=p, gate=BatchGate()), k))
    seen = np.asarray([batch(jax.random.key(i)) for i in range(300)])
    assert np.all(np.ptp(seen, axis=1) == 0)
    assert abs(seen[:, 0].mean() - p) < 4 * np.sqrt(p * (1 - p) / 300)
    example = who(PseudoContext(p=p, gate=ExampleGate()), 20 * n, jax.random.key(0))
    assert abs(example.mean() - p) < 4 * np.sqrt(p * (1 - p) / (20 * n))
    fraction = who(PseudoContext(p=p, gate=FractionGate(group=10)), n, jax.random.key(0))
    paying = np.tile(np.arange(10) < 7, (n // 10, 1))
    np.testing.assert_array_equal(fraction.reshape(-1, 10), paying)
    with pytest.raises(UserError, match="whole number"):
        who(PseudoContext(p=0.75, gate=FractionGate(group=10)), n, jax.random.key(0))
    assert who(PseudoContext(p=1.0, passes=3), 4, jax.random.key(0)).tolist() == [3.0] * 4


def who_traced(context, key):
    z = jnp.zeros((5, 2), jnp.int32)
    return context(Spy(), z, Cond(), None, key, jnp.arange(5))[:, 0, 0]


def test_a_context_needs_a_latent():
    bound = BASE.bind(live_params(BASE))
    with pytest.raises(ValueError, match="needs a network with a latent"):
        PseudoContext()(
            bound, jnp.zeros((1, 2), jnp.int32), Cond(), None, jax.random.key(0), jnp.arange(1)
        )


@pytest.mark.slow
@pytest.mark.parametrize("reached", [0, 2], ids=["stopped", "some"])
def test_many_passes_are_a_loop_of_one_size(reached):
    """h of five passes and its gradient are those of single calls; more are no more program."""
    denoiser, z, cond = MODEL.bind(live_params(MODEL)), batch_of().z0, Cond(clock=jnp.full(B, 0.6))
    made = []

    def one_by_one(denoiser):
        h = None
        for i in range(5):
            live = denoiser if i >= 5 - reached else jax.lax.stop_gradient(denoiser)
            h = live.trunk(z, cond, h).latent
        return jnp.sum(jnp.sin(h)), h

    def looped(denoiser, passes=5):
        h = iterated(denoiser, passes, reached)(z, cond, None)
        return jnp.sum(jnp.sin(h)), h

    for run in (one_by_one, looped):
        made.append(jit(jax.value_and_grad(run, has_aux=True))(denoiser))
    close(*made, rtol=2e-4, atol=2e-5)
    if reached:
        assert gap(made[0][1], jax.tree.map(jnp.zeros_like, denoiser)) > 1e-3
    else:  # nothing is reached
        jax.tree.map(lambda a: np.testing.assert_array_equal(a, 0), made[1][1])
    size = lambda n: str(jax.make_jaxpr(lambda d: looped(d, n)[1])(denoiser)).count("\n")
    assert size(9) == size(12), (size(9), size(12))
