"""MGDM's loss against NumPy: weights, gradient through the token weight, times, normaliser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.objectives import ImportanceTimes, Mgdm, Nelbo, NoContext, PseudoContext, StepTimes
from ldd_jax.objectives.strata import stratified
from ldd_jax.processes import Masked, Uniform
from ldd_jax.schedules import LogLinear
from tests.lab import jit, live_params

B, L, V, MASK = 8, 6, 7, 3
TOKENS = TokenSpace(size=V, mask=MASK)
MODEL = DiT(tokens=TOKENS, width=16, depth=1, heads=2, adaln=False)
PROCESS = Masked(tokens=TOKENS)
PARAMS = live_params(MODEL)
KEY = jax.random.key(4)


def batch_of(n=B):
    rng = np.random.default_rng(0)
    keep = jnp.asarray(rng.uniform(size=(n, L)) < 0.2)
    weight = jnp.asarray(~keep, jnp.float32)
    z0 = jnp.asarray(rng.choice([0, 1, 2, 4, 5, 6], (n, L)), jnp.int32)
    return Batch(z0, keep, weight, Cond(), jnp.arange(n), n, jnp.sum(weight))


def numpy_token_loss(logits, x, alpha, gamma):
    """alpha (1 - p)^gamma (-log p) in float64, the mask column left out."""
    logits = np.delete(np.asarray(logits, np.float64), MASK, -1)
    x = np.where(np.asarray(x) > MASK, np.asarray(x) - 1, x)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p = np.take_along_axis(p, x[..., None], -1)[..., 0]
    return alpha * (1 - p) ** gamma * -np.log(p)


@pytest.mark.parametrize("steps, weight", [(20, "linear"), (4, "reciprocal"), (1, "linear")])
def test_times_are_every_share_once(steps, weight):
    """A stratified batch of `steps` meets every k; the schedule masks k / steps exactly."""
    schedule = LogLinear()
    u = stratified(KEY, jnp.arange(steps), steps)
    t, factor = StepTimes(steps=steps, weight=weight)(u, schedule)
    order = np.argsort(t)
    k = np.arange(1, steps + 1)
    share = np.minimum(k / steps, 1 - schedule.eps)
    np.testing.assert_allclose(np.asarray(schedule.noise(t))[order], share, rtol=1e-6)
    assert (t > 0).all() and (t <= 1).all()
    expected = steps + 1 - k if weight == "linear" else 1 / k
    np.testing.assert_allclose(np.asarray(factor)[order], expected, rtol=1e-6)
    np.testing.assert_allclose(StepTimes(steps=steps).share, (k / steps).mean())


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("tile", [0, 5])
def test_loss_is_the_published_formula(tile, gamma):
    """All times and masks are read back from the draws of the objective itself."""
    batch = batch_of()
    times = StepTimes(steps=4)
    seen = {}

    class Spy(NoContext):
        def __call__(self, denoiser, z, cond, keys_B, key, index_B):
            seen["z"], seen["sigma"] = z, cond.clock

    objective = Mgdm(process=PROCESS, times=times, gamma=gamma, tile=tile)
    spied = Mgdm(process=PROCESS, times=times, gamma=gamma, tile=tile, context=Spy())
    spied(MODEL.bind(PARAMS), batch, KEY)
    loss = jit(lambda p: objective(MODEL.bind(p), batch, KEY))(PARAMS)
    z = np.asarray(seen["z"])
    k = np.round(4 * (1 - np.exp(-np.asarray(seen["sigma"])))).astype(int)
    assert sorted(k) == [1, 1, 2, 2, 3, 3, 4, 4]
    bound = MODEL.bind(PARAMS)
    logits = bound.head(bound.trunk(seen["z"], Cond()).features)
    each = numpy_token_loss(logits, batch.z0, 0.25, gamma) * (z == MASK) * (5 - k)[:, None]
    assert (z == MASK).sum() > 10 and not (z == MASK)[np.asarray(batch.keep)].any()
    expected = each.sum() / (float(batch.norm) * 5 / 8)
    np.testing.assert_allclose(loss.total, expected, rtol=2e-5)
    np.testing.assert_allclose(loss.metrics["loss_B"], each.sum(1), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 1.5])
def test_gradient_flows_through_the_token_weight(gamma):
    """Slope by CE: a [(1 - p)^g + g p (1 - p)^(g - 1) CE]; of CE by the logits: p - onehot."""
    objective = Mgdm(process=PROCESS, gamma=gamma)
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(0, 2, (5, V)), jnp.float32)
    x, z, t = jnp.asarray([0, 1, 2, 5, 6]), jnp.full(5, MASK), jnp.full(5, 0.3)
    grad = jax.grad(lambda a: objective.integrand(a, x, z, t).sum())(logits)
    p = np.exp(np.asarray(PROCESS.read(logits, z, t), np.float64))
    own = p[np.arange(5), x]
    slope = (1 - own) ** gamma - gamma * own * (1 - own) ** (gamma - 1) * np.log(own)
    expected = 0.25 * slope[:, None] * (p - np.eye(V)[x])
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
    # Rows without a mask weigh nothing, and a sure prediction has no infinite slope.
    sure = jnp.where(jnp.arange(V) == 0, 60.0, -60.0)[None]
    one = lambda a, z: objective.integrand(a, x[:1], z, t[:1])[0]
    for token in (0, MASK):
        g = jax.grad(one)(sure, jnp.asarray([token]))
        np.testing.assert_allclose(g, 0, atol=1e-6)


@pytest.mark.slow
def test_with_gamma_zero_and_reciprocal_steps_it_is_the_nelbo_on_the_same_times():
    """alpha = 1, gamma = 0, w = 1/k: T times the bound at t = k / T, but for the normaliser."""
    batch, steps = batch_of(), 5
    process = Masked(tokens=TOKENS, schedule=LogLinear(eps=0.0))
    times = StepTimes(steps=steps, weight="reciprocal")
    mgdm = Mgdm(process=process, times=times, alpha=1.0, gamma=0.0)

    class Plain(StepTimes):
        def __call__(self, u_B, schedule):
            t, _ = super().__call__(u_B, schedule)
            return t, jnp.ones_like(t)

    nelbo = Nelbo(process=process, times=Plain(steps=steps))
    a = mgdm(MODEL.bind(PARAMS), batch, KEY).total
    b = nelbo(MODEL.bind(PARAMS), batch, KEY).total
    np.testing.assert_allclose(a * steps * times.share, b, rtol=1e-5)


@pytest.mark.slow
def test_lddm_g_is_mgdm_with_a_context():
    batch, params = batch_of(), PARAMS
    total = lambda c: (
        jit(lambda p: Mgdm(process=PROCESS, context=c)(MODEL.bind(p), batch, KEY))(params).total
    )
    np.testing.assert_allclose(total(PseudoContext(p=0.0)), total(NoContext()), rtol=1e-6)
    assert abs(total(PseudoContext(p=1.0)) - total(NoContext())) > 1e-5


@pytest.mark.slow
def test_microbatches_add_up():
    batch = batch_of()
    objective = Mgdm(process=PROCESS, context=PseudoContext(p=1.0), tile=5)
    run = jit(lambda p, b: objective(MODEL.bind(p), b._replace(total=B), KEY).total)
    cut = lambda s: batch._replace(
        z0=batch.z0[s], keep=batch.keep[s], weight=batch.weight[s], index=batch.index[s]
    )
    halves = [run(PARAMS, cut(slice(i, i + 4))) for i in (0, 4)]
    np.testing.assert_allclose(sum(halves), run(PARAMS, batch), rtol=1e-5)


def test_evaluation_is_the_bound_of_masked_diffusion():
    for passes in (1, 2):
        found, plain = (o.as_bound(passes) for o in (Mgdm(process=PROCESS), Nelbo(process=PROCESS)))
        assert type(found) is Nelbo and found == plain
    assert not Mgdm(process=PROCESS).exact


@pytest.mark.parametrize(
    "fields, why",
    [
        (dict(gamma=0.5), "gamma"),
        (dict(alpha=0.0), "alpha"),
        (dict(times=ImportanceTimes()), "steps"),
        (dict(process=Uniform(tokens=TokenSpace(size=V))), "masked"),
        (dict(tile=-2), "tile"),
    ],
)
def test_refusals(fields, why):
    with pytest.raises(ValueError, match=why):
        Mgdm(**{"process": PROCESS, **fields})
    with pytest.raises(ValueError, match="weight"):
        StepTimes(weight="quadratic")
    with pytest.raises(ValueError, match="steps"):
        StepTimes(steps=0)
