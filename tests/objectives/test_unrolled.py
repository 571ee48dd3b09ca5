"""h along a forward trajectory: laws of its states, weights of its losses, stopped gradients."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import example_keys
from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.objectives import (
    BatchGate,
    CrossEntropyTimes,
    ExampleGate,
    FractionGate,
    GridTimes,
    ImportanceTimes,
    Mgdm,
    Nelbo,
    PatchNelbo,
    PseudoContext,
    Sic,
    UniformTimes,
    Unrolled,
)
from ldd_jax.objectives.strata import stratified
from ldd_jax.objectives.windows import CORRUPT, TIMES, along
from ldd_jax.processes import Masked, Uniform
from ldd_jax.processes import masked as masked_module
from ldd_jax.processes import uniform as uniform_module
from ldd_jax.schedules import LogLinear
from tests.lab import jit, live_params
from tests.objectives.test_stopped_context import Line

B, L, V = 8, 3, 4
TOKENS = TokenSpace(size=V, mask=V - 1)
MASKED = Masked(tokens=TOKENS, schedule=LogLinear(eps=0.1))
UNIFORM = Uniform(tokens=TokenSpace(size=V), schedule=LogLinear(eps=0.2))
W = jnp.asarray([0.7, -0.4])
KEY = jax.random.key(3)


def batch_of(n=B, seed=0, keep=0.2):
    rng = np.random.default_rng(seed)
    z0 = jnp.asarray(rng.integers(0, V - 1, (n, L)), jnp.int32)
    kept = jnp.asarray(rng.uniform(size=(n, L)) < keep)
    weight = jnp.asarray(~kept, jnp.float32)
    return Batch(z0, kept, weight, Cond(), jnp.arange(n), n, jnp.sum(weight))


@pytest.mark.parametrize("process, module", [(MASKED, masked_module), (UNIFORM, uniform_module)])
def test_a_bridge_has_the_posterior_of_the_data(process, module, monkeypatch):
    """All of chance laid out: every uniform of a lattice with every noise token."""
    many = 4096
    noise = np.tile(np.arange(V), many)
    u = np.repeat((np.arange(many) + 0.5) / many, V)
    monkeypatch.setattr(module, "uniforms", lambda keys, shape: jnp.asarray(u[:, None]))
    monkeypatch.setattr(Uniform, "_noise", lambda *_: jnp.asarray(noise[:, None]))
    monkeypatch.setattr(module, "fold", lambda keys, data: keys)
    size = V - process.absorbing
    for x, z, (t, s) in itertools.product(
        range(size), range(V), [(0.9, 0.4), (1.0, 0.7), (0.5, 0.0), (0.4, 0.4)]
    ):
        if process.absorbing and z not in (x, V - 1):
            continue
        rows = lambda a: jnp.full((many * V, 1), a)
        clock, later = jnp.full(many * V, t), jnp.full(many * V, s)
        new = process.bridge(None, rows(x), rows(z), clock, later, rows(0) > 0)
        found = np.bincount(np.asarray(new)[:, 0], minlength=V) / (many * V)
        one = lambda a: jnp.asarray([a])
        known = process.one_hot_prediction(one(x), one(z), one(t))
        want = np.exp(process.log_posterior(known, one(z), one(t), one(s)))[0]
        np.testing.assert_allclose(found, want, atol=2 / many)
        kept = process.bridge(None, rows(x), rows(x), clock, later, rows(0) == 0)
        np.testing.assert_array_equal(kept, x)


@pytest.mark.parametrize("steps, passes", [(4, 2), (3, 5), (0, 2)])
def test_every_time_has_the_same_weight_in_the_loss_of_all_states(steps, passes):
    """A lattice of places: shares of the states at them add up to the uniform law, exactly."""
    many = 64 * max(steps, 1)
    context = Unrolled(passes=passes, steps=steps, scored="all")
    objective = Nelbo(process=MASKED, context=context, times=UniformTimes(eps=0.0))
    u = (np.arange(many) + 0.5) / many
    batch = batch_of(many)
    given = jnp.asarray(u, jnp.float32), jax.random.split(KEY, many)
    found = jit(lambda *given: context.window(objective, batch, *given))(*given)
    place = 1 - np.asarray(found.clock)
    share = np.where(found.live, found.share, 0)
    total = np.zeros(many)
    np.add.at(total, np.round(place * many - 0.5).astype(int), share)
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert np.all(np.diff(found.clock, axis=0) <= 0)
    gaps = np.diff(place, axis=0)
    begun = np.asarray(found.live[:-1])
    np.testing.assert_allclose(gaps[begun], 1 / steps if steps else 0, atol=1e-6)
    np.testing.assert_allclose(gaps[~begun], 0, atol=1e-6)
    mask = np.asarray(found.z) == V - 1
    assert np.all(mask[:-1] >= mask[1:])  # nested
    assert np.all(np.where(mask, True, np.asarray(found.z) == batch.z0))


def by_hand(objective, net, batch, window, told, gradient):
    """Total by a Python loop, one state after the other."""
    context, h, total = objective.context, jnp.zeros((*batch.z0.shape, 1)), 0.0
    n = context.passes
    for j in range(n + 1):
        stop = j <= n - gradient
        h = jax.lax.stop_gradient(h) if stop else h
        trunk = net.trunk(window.z[j], Cond(clock=told[j]), h)
        if context.scored == "all" or j == n:
            logits = net.head(trunk.features.reshape(-1, 1))
            rows = lambda a: jnp.repeat(a, L)
            z = window.z[j].reshape(-1)
            loss = objective.integrand(logits, batch.z0.reshape(-1), z, rows(window.clock[j]))
            on = objective.process.scored(z) & ~batch.keep.reshape(-1) & rows(window.live[j])
            each = rows(window.factor[j] * window.share[j]) * batch.weight.reshape(-1) * loss
            total += jnp.sum(jnp.where(on, each, 0)) / batch.norm
        h = jnp.where(window.live[j][:, None, None], trunk.latent, 0)
    return total


def states_of(objective):
    """The window of an update with the key of these tests."""
    batch = batch_of()
    site = lambda i: jax.random.fold_in(KEY, i)

    @jit
    def states():
        u = stratified(site(TIMES), batch.index, B)
        own = example_keys(site(CORRUPT), batch.index)
        return objective.context.window(objective, batch, u, own)

    return states()


def test_the_gradient_goes_back_as_far_as_is_said():
    """Derivatives by w of h_n = w_0 x_n + w_1 h_(n-1), the last of them through it."""
    batch = batch_of()

    def total(w, gradient):
        context = Unrolled(p=1.0, passes=3, gradient=gradient, steps=4)
        return Nelbo(process=MASKED, context=context)(Line(w), batch, KEY).total

    found = [jit(jax.value_and_grad(lambda w, g=g: total(w, g)))(W) for g in range(4)]
    assert len({float(value) for value, _ in found}) == 1
    slopes = np.asarray([slope for _, slope in found])
    assert np.abs(np.diff(slopes, axis=0)).max(1).min() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "process, fields",
    [
        (MASKED, dict()),
        (MASKED, dict(gradient=2)),
        (MASKED, dict(scored="all")),
        (MASKED, dict(scored="all", gradient=1)),
        (UNIFORM, dict(scored="all")),
    ],
    ids=str,
)
def test_losses_and_gradients_are_those_of_a_plain_loop(process, fields):
    context = Unrolled(passes=3, steps=6, **fields)
    objective = Nelbo(process=process, context=context)
    batch, window = batch_of(), states_of(objective)
    told = process.conditioning(window.clock)
    loss = lambda w: objective(Line(w), batch, KEY).total
    want = lambda w: by_hand(objective, Line(w), batch, window, told, context.gradient)
    found, slope = jit(jax.value_and_grad(loss))(W)
    wanted, wanted_slope = jit(jax.value_and_grad(want))(W)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(slope, wanted_slope, rtol=1e-4)
    assert not np.all(window.live[0]) and np.any(window.live[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "times", [UniformTimes(eps=0.0), GridTimes(steps=4)], ids=["uniform", "grid"]
)
def test_all_states_and_the_last_estimate_one_bound(times):
    """A network that reads no h: both means are the exact bound, E_t w (1 - alpha) CE."""
    many = 1 << 13
    batch = batch_of(many, keep=0.0)
    w = jnp.asarray([0.3, 0.0])
    process = Masked(tokens=TOKENS, schedule=LogLinear(eps=1e-3))

    def mean(context):
        objective = Nelbo(process=process, context=context, times=times)
        loss_B = jit(lambda: objective(Line(w), batch, KEY).metrics["loss_B"])() / L
        return float(jnp.mean(loss_B)), float(jnp.std(loss_B)) / many**0.5

    logits = 0.3 * V * jnp.arange(V - 1)
    ce = float(np.mean(-jax.nn.log_softmax(logits)[batch.z0]))
    want = ce * (1 if times.of_tokens else 1 - 1e-3)
    last, all_of = (mean(Unrolled(passes=2, steps=4, scored=s)) for s in ("last", "all"))
    assert abs(last[0] - want) < 4 * last[1] and abs(all_of[0] - want) < 4 * all_of[1]
    assert max(all_of[1], last[1]) < 0.035


MODEL = DiT(tokens=TOKENS, width=16, depth=1, heads=2, cond_width=8, time_conditioning=True)


def solved(context, bind, params, **fields):
    objective = Nelbo(process=MASKED, context=context, **fields)

    def loss(params):
        out = objective(bind(params), batch_of(), KEY)
        return out.total, out.metrics

    return jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("p, gate, passes", [(1.0, BatchGate(), 1), (0.5, FractionGate(), 2)])
def test_with_no_step_between_its_states_it_is_the_pseudo_context_to_the_bit(
    p, gate, passes, gradient
):
    gate = dataclasses.replace(gate, group=4) if p < 1 else gate
    same = dict(p=p, gate=gate, passes=passes)
    old = solved(PseudoContext(**same, gradient=gradient), Line, W)
    new = solved(Unrolled(**same, steps=0, gradient=passes * gradient), Line, W)
    jax.tree.map(np.testing.assert_array_equal, old, new)
    other = solved(Unrolled(**same, steps=3), Line, W)
    assert abs(float(other[0][0] - old[0][0])) > 1e-5


@pytest.mark.slow
def test_and_so_with_the_network_itself():
    params = live_params(MODEL)
    old, new = (
        solved(context, MODEL.bind, params, tile=5)
        for context in (PseudoContext(p=1.0), Unrolled(steps=0))
    )
    jax.tree.map(np.testing.assert_array_equal, old, new)


def test_h_of_a_row_begins_where_the_row_does():
    """Along states of which a row skips the first ones, and back through them or not."""
    z = jnp.arange(3 * B * L).reshape(3, B, L) % V
    live = jnp.arange(3)[:, None] >= jnp.arange(B) % 3

    def last(w, cut):
        states = (z, jnp.zeros((3, B)), live)
        h, _ = along(Line(w), states, Cond(), jnp.zeros((B, L, 1)), None, 0, cut=cut)
        return h[..., 0].sum(1)

    h, slope = np.zeros((B, L)), np.zeros((B, L))
    for row, begun in zip(np.asarray(z), np.asarray(live)[..., None]):
        slope = np.where(begun, h + W[1] * slope, 0)
        h = np.where(begun, W[0] * (row + 1) + W[1] * h, 0)
    np.testing.assert_allclose(last(W, False), h.sum(1), rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(last)(W, False)[:, 1], slope.sum(1), rtol=1e-6)
    assert np.abs(jax.jacrev(last)(W, True)[:, 1] - slope.sum(1)).max() > 0.1


def test_gates_choose_who_has_a_context():
    """An example without one has the loss of a network without latent."""
    batch = batch_of()
    score = lambda c: Nelbo(process=MASKED, context=c)(Line(W), batch, KEY).metrics["loss_B"]
    loss = lambda context: jit(lambda: score(context))()
    how = dict(passes=2, steps=4)
    off, on = (loss(Unrolled(p=p, gate=ExampleGate(), **how)) for p in (0.0, 1.0))
    some = loss(Unrolled(p=0.5, gate=FractionGate(group=2), **how))
    np.testing.assert_allclose(some[0::2], on[0::2], rtol=1e-6)
    np.testing.assert_allclose(some[1::2], off[1::2], rtol=1e-6)
    assert np.any(np.abs(on - off) > 1e-4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Mixed(Line):
    """Every position sees all."""

    def trunk(self, z, cond, h=None, *, key=None):
        return Line.trunk(self, z + jnp.mean(z, 1, keepdims=True), cond, h, key=key)


@pytest.mark.slow
def test_a_condition_that_is_dropped_is_gone_from_all_states():
    context = Unrolled(passes=2, steps=4)
    objective = Nelbo(process=MASKED, context=context, condition_dropout=0.999)
    window, batch = states_of(objective), batch_of()
    hidden = window._replace(z=jnp.where(batch.keep, V - 1, window.z))
    totals = [
        float(by_hand(objective, Mixed(W), batch, w, MASKED.conditioning(w.clock), 0))
        for w in (hidden, window)
    ]
    found = float(jit(lambda: objective(Mixed(W), batch, KEY).total)())
    assert found == pytest.approx(totals[0], rel=1e-5) and abs(totals[1] - found) > 1e-4


def test_mgdm_goes_along_too():
    objective = Mgdm(process=MASKED, context=Unrolled(passes=2, steps=20, scored="all"))
    assert np.isfinite(jit(lambda: objective(Line(W), batch_of(), KEY).total)())


@pytest.mark.parametrize(
    "fields, why",
    [
        (dict(passes=0), "passes is 0"),
        (dict(steps=-1), "steps is -1"),
        (dict(gradient=2), "it goes through 0 to 1 passes"),
        (dict(scored="both"), "not one of last, all"),
        (dict(scored="all", p=0.5), "set p to 1"),
        (dict(p=1.5), "not a probability"),
    ],
)
def test_wrong_fields(fields, why):
    with pytest.raises(ValueError, match=why):
        Unrolled(**fields)


@pytest.mark.parametrize(
    "kind, fields, why",
    [
        (Nelbo, dict(times=ImportanceTimes()), "times that fall"),
        (Nelbo, dict(times=CrossEntropyTimes()), "times that fall"),
        (PatchNelbo, dict(), "objectives nelbo and mgdm"),
        (Sic, dict(), "objectives nelbo and mgdm"),
    ],
)
def test_what_has_no_trajectory(kind, fields, why):
    with pytest.raises(ValueError, match=why):
        kind(process=MASKED, context=Unrolled(), **fields)
    unbridged = dataclasses.replace(MASKED)
    object.__setattr__(unbridged, "bridges", False)
    with pytest.raises(ValueError, match="known for masked and uniform diffusion"):
        Nelbo(process=unbridged, context=Unrolled())
