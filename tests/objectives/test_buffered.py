"""h of trajectories that go on from update to update: the buffer, its law, and its bound."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.objectives import GridTimes, Nelbo, Rollout, UniformTimes
from ldd_jax.processes import Masked, Uniform
from ldd_jax.schedules import LogLinear
from ldd_jax.training.state import TrainState
from ldd_jax.training.step import Update
from tests.lab import jit
from tests.objectives.test_stopped_context import Line

B, L, V, T = 8, 3, 4, 4
TOKENS = TokenSpace(size=V, mask=V - 1)
MASKED = Masked(tokens=TOKENS, schedule=LogLinear(eps=0.1))
UNIFORM = Uniform(tokens=TokenSpace(size=V), schedule=LogLinear(eps=0.2))
W = jnp.asarray([0.7, -0.4])
SHAPE = lambda batch, length: jax.ShapeDtypeStruct((batch, length, 1), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Model:
    """Of `Line`."""

    def bind(self, params):
        return Line(params)


def arrays(step, n=B):
    rng = np.random.default_rng(step)
    keep = rng.uniform(size=(n, L)) < 0.2
    return {
        "z0": jnp.asarray(rng.integers(0, V - 1, (n, L)), jnp.int32),
        "keep": jnp.asarray(keep),
        "weight": jnp.asarray(~keep, jnp.float32),
        "index": jnp.arange(n),
    }


def objective_of(process=MASKED, times=None, **fields):
    context = Rollout(**{"steps": T, "carried": SHAPE, **fields})
    return Nelbo(process=process, context=context, times=times or UniformTimes(eps=0.0))


def begun(objective, n=B):
    zeros = lambda a: jnp.zeros(a.shape, a.dtype)
    aux = jax.tree.map(zeros, objective.aux(n, L))
    return TrainState(jnp.int32(0), W, W, (), aux)


def updates(objective, count, lr=0.0, accumulate=1, groups=1, state=None, n=B):
    """States after each of some updates, and their losses."""
    update = Update(
        Model(), objective, optax.sgd(lr), ema_decay=0.9, accumulate=accumulate, groups=groups
    )
    step = jit(update)
    state = state or begun(objective, n).replace(opt_state=optax.sgd(lr).init(W))
    out = []
    for _ in range(count):
        state, metrics = step(state, arrays(int(state.step), n), jax.random.key(5))
        out.append((state, float(metrics["loss"])))
    return out


@pytest.mark.parametrize("process", [MASKED, UNIFORM], ids=["masked", "uniform"])
def test_rows_go_their_way_and_leave_what_the_network_left(process):
    objective = objective_of(process)
    found = [s.aux for s, _ in updates(objective, 2 * T)]
    h = np.zeros((B, L, 1))
    for i, now in enumerate(found):
        new = np.asarray(found[i - 1].left == 0) if i else np.ones(B, bool)
        data = arrays(i)
        before = found[i - 1] if i else now
        np.testing.assert_array_equal(now.z0[new], data["z0"][new])
        np.testing.assert_array_equal(now.z0[~new], before.z0[~new])
        if i:
            np.testing.assert_array_equal(now.left[~new], before.left[~new] - 1)
            np.testing.assert_array_equal(now.left[new], T - 1)
            np.testing.assert_array_equal(now.phase[~new], before.phase[~new])
        if process.absorbing:  # nested, and never another token
            mask = np.asarray(now.z) == V - 1
            assert np.all(mask | (np.asarray(now.z) == now.z0))
            assert np.all(np.asarray(before.z)[~new][mask[~new]] == V - 1) or not i
        assert np.all(np.asarray(now.z)[np.asarray(now.keep)] == np.asarray(now.z0)[now.keep])
        h = np.where(new[:, None, None], 0, h)
        h = float(W[0]) * (np.asarray(now.z)[..., None] + 1) + float(W[1]) * h
        np.testing.assert_allclose(now.h, h, rtol=1e-5)
    first = found[0].left
    assert sorted(np.asarray(T - 1 - first)) == sorted(np.repeat(np.arange(T), B // T))
    assert len({tuple(np.asarray(a.left)) for a in found}) == T


@pytest.mark.slow
def test_the_loss_is_that_of_the_states_with_their_h():
    """By hand: the integrand at the place of each row, h of the update before."""
    objective = objective_of(passes=1, steps=4)
    states = updates(objective, 3)
    before, batch = states[1][0], arrays(2)
    data = Batch(
        batch["z0"], batch["keep"], batch["weight"], Cond(), batch["index"], B,
        jnp.sum(batch["weight"]), jnp.int32(2),
    )  # fmt: skip
    key = jax.random.fold_in(jax.random.key(5), 2)
    aux, rows = jit(lambda aux: objective.drawn(Line(W), data, aux, key))(before.aux)
    z, place, h = rows.drawn
    turn = T - np.asarray(aux.left)
    assert np.all(np.floor(np.asarray(place) * T) == turn[:, None] - [[2, 1]])
    total = 0.0
    for j in range(2):
        trunk = Line(W).trunk(z[:, j], Cond(), h)
        clock = 1 - place[:, j]
        loss = MASKED.bound(
            Line(W).head(trunk.features.reshape(-1, 1)), rows.z0.reshape(-1),
            z[:, j].reshape(-1), jnp.repeat(clock, L),
        ).reshape(B, L)  # fmt: skip
        total += jnp.sum(jnp.where(rows.keep, 0, rows.weight * loss)) / 2 / jnp.sum(rows.weight)
        h = trunk.latent
    np.testing.assert_allclose(states[2][1], total, rtol=1e-5)
    np.testing.assert_allclose(states[2][0].aux.h, h, rtol=1e-5)


@pytest.mark.parametrize("process", [MASKED, UNIFORM], ids=["masked", "uniform"])
def test_several_states_of_an_update_have_their_own_marginals(process):
    """As many tokens are noise as the schedule says at the place of each state, old row or new."""
    n, objective = 4096, objective_of(process, passes=1)
    aux = objective.aux(n, L)
    data = {k: jnp.asarray(v) for k, v in arrays(0, n).items()}
    data |= {"z0": jnp.zeros((n, L), jnp.int32), "keep": jnp.zeros((n, L), bool)}

    def two(aux):
        for step in range(2):
            batch = Batch(
                data["z0"], data["keep"], data["weight"], Cond(), data["index"], n,
                jnp.sum(data["weight"]), jnp.int32(step),
            )  # fmt: skip
            key = jax.random.fold_in(jax.random.key(5), step)
            aux, rows = objective.drawn(Line(W), batch, aux, key)
        return rows.drawn

    z, place, _ = jit(two)(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), aux))
    stay = np.asarray(process.schedule.alpha(1 - place))
    kept = stay if process.absorbing else stay + (1 - stay) / V
    found = np.asarray(z == 0)
    for half in (place[:, 0] < 0.5, place[:, 0] >= 0.5):
        for j in range(2):
            want, some = kept[half, j], found[half, j]
            error = np.sqrt((want * (1 - want)).sum() * L) / some.size
            assert abs(some.mean() - want.mean()) < 4 * error and error < 0.02


def test_gradients_reach_back_where_they_are_told_to():
    slopes = []
    for gradient in (0, 1):
        objective = objective_of(passes=1, gradient=gradient)
        update = Update(Model(), objective, optax.sgd(0.0), ema_decay=0.9)
        state = begun(objective)

        def solve(update=update, state=state):
            _, batch, key = update.begin(state, arrays(0), jax.random.key(5))
            return update.gradients(W, batch, key)

        loss, g = jit(solve)()
        slopes.append((float(loss.total), np.asarray(g)))
    assert slopes[0][0] == pytest.approx(slopes[1][0], rel=1e-6)
    assert np.abs(slopes[0][1] - slopes[1][1]).max() > 1e-4


@pytest.mark.parametrize(
    "times", [UniformTimes(eps=0.0), GridTimes(steps=T)], ids=["uniform", "grid"]
)
def test_its_mean_is_the_bound(times):
    """A network that reads no h: over updates and rows the mean is the exact bound."""
    w = jnp.asarray([0.3, 0.0])
    process = Masked(tokens=TOKENS, schedule=LogLinear(eps=1e-3))
    objective = objective_of(process, times, steps=T)
    n, count = 1024, 3 * T
    update = Update(Model(), objective, optax.sgd(0.0), ema_decay=0.9)
    step = jit(update)
    state = begun(objective, n).replace(params=w, ema=w, opt_state=optax.sgd(0.0).init(w))
    losses = []
    for i in range(count):
        data = arrays(i, n) | {"keep": jnp.zeros((n, L), bool), "weight": jnp.ones((n, L))}
        data["z0"] = jnp.tile(jnp.arange(V - 1), (n, 1))
        state, metrics = step(state, data, jax.random.key(i))
        losses.append(float(metrics["loss"]))
    logits = 0.3 * V * jnp.arange(V - 1)
    ce = float(np.mean(-jax.nn.log_softmax(logits)))
    want = ce * (1 if times.of_tokens else 1 - 1e-3)
    spread = np.std(losses) / count**0.5
    assert abs(np.mean(losses) - want) < 4 * spread and spread < 0.05 * want


@pytest.mark.slow
def test_microbatches_and_resuming_change_no_bit_of_the_buffer():
    objective = objective_of(passes=1)
    whole = updates(objective, 4, lr=0.1)
    parts = updates(objective, 4, lr=0.1, accumulate=2, groups=2)
    for (a, x), (b, y) in zip(whole, parts):
        np.testing.assert_allclose(x, y, rtol=1e-5)
        np.testing.assert_array_equal(a.aux.z, b.aux.z)
        np.testing.assert_allclose(a.aux.h, b.aux.h, rtol=1e-4, atol=1e-6)
    again = updates(objective, 2, lr=0.1, state=whole[1][0])
    jax.tree.map(np.testing.assert_array_equal, again[1][0], whole[3][0])


def test_what_is_no_number_does_not_stay_in_the_buffer():
    objective = objective_of()
    state = begun(objective).replace(params=jnp.asarray([jnp.nan, 0.0]))
    state = state.replace(opt_state=optax.sgd(0.0).init(W))
    assert np.all(np.isfinite(updates(objective, 1, state=state)[0][0].aux.h))


def test_refusals():
    for fields, why in (
        (dict(steps=0), "steps is 0"),
        (dict(passes=-1), "passes is -1"),
        (dict(passes=1, gradient=2), "it goes through 0 to 1 passes"),
        (dict(steps=5, passes=1), "no multiple of passes"),
    ):
        with pytest.raises(ValueError, match=why):
            Rollout(**fields)
    objective = objective_of()
    data = arrays(0)
    told = Cond(segment=jnp.ones((B, L), jnp.int32))
    batch = Batch(data["z0"], data["keep"], data["weight"], told, data["index"], B, jnp.ones(()))
    with pytest.raises(UserError, match="use context unrolled for data with labels"):
        objective.drawn(Line(W), batch, begun(objective).aux, jax.random.key(0))
