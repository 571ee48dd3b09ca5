"""The bounds against published closed forms, rates of divergence, and exact likelihoods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import beta

from ldd_jax.core.types import Batch, Cond, TokenSpace
from ldd_jax.core.vocabulary_tiles import rows_loss
from ldd_jax.objectives import ImportanceTimes, Nelbo, UniformTimes
from ldd_jax.processes import Masked, Uniform
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import Law, index, log_table, table_denoiser
from tests.parity.numpy_reference import log_softmax

pytestmark = pytest.mark.usefixtures("x64")


def long_form(logits, x, z, alpha, d_alpha):
    """UDLM eq. 18 with whole rows."""
    v = logits.shape[-1]
    true = v * alpha * np.eye(v)[x] + 1 - alpha
    model = v * alpha * np.exp(log_softmax(logits)) + 1 - alpha
    total = np.sum(true / true[z] * np.log(model[z] * true / (model * true[z])))
    return d_alpha / (v * alpha) * (v / true[z] - v / model[z] - total)


def short_form(logits, x, z, alpha, d_alpha):
    """The O(V) reduction of Duo and LDDM."""
    v = logits.shape[-1]
    eq, c = float(x == z), (1 - alpha) / (v * alpha + 1 - alpha)
    true = v * alpha * np.eye(v)[x] + 1 - alpha
    model = v * alpha * np.exp(log_softmax(logits)) + 1 - alpha
    log = np.log(model)
    second = -(eq * c + 1 - eq) * (log.sum() - v * log[z])
    second -= (1 - eq) * v * alpha / (1 - alpha) * (log[x] - log[z])
    second += (eq * (v - 1) * c - (1 - eq) / c) * np.log(c)
    return d_alpha / (v * alpha) * (v / true[z] - v / model[z] - second)


def test_what_is_seen_costs_nothing():
    logits, z0 = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5))), jnp.arange(3)
    process = Masked(tokens=TokenSpace(size=5, mask=4))
    nats = process.bound(logits, z0, z0.at[1].set(4), jnp.full(3, 0.5))
    assert nats[1] > 0 and nats[0] == nats[2] == 0


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=["linear", "cosine"])
def test_uniform_bound_is_the_published_form(schedule):
    rng = np.random.default_rng(0)
    v, n = 7, 40
    logits, t = rng.normal(0, 2, (n, v)), rng.uniform(0.05, 0.99, n)
    x, z = rng.integers(0, v, (2, n))
    z[:15] = x[:15]
    process = Uniform(schedule=schedule, tokens=TokenSpace(size=v))
    ours = process.bound(*map(jnp.asarray, (logits, x, z, t)))
    alpha, d_alpha = (np.asarray(f(jnp.asarray(t))) for f in (schedule.alpha, schedule.d_alpha))
    for form in (long_form, short_form):
        theirs = [form(logits[i], x[i], z[i], alpha[i], d_alpha[i]) for i in range(n)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [Uniform, Masked])
def test_bound_is_the_rate_of_the_posterior_divergence(make):
    """bound = d/ds KL(q(z_s | z_t, x) || p(z_s | z_t)) as s -> t from below."""
    rng = np.random.default_rng(1)
    v, n, h = 6, 30, 1e-5
    process = make(tokens=TokenSpace(size=v, mask=2))
    logits, t = rng.normal(0, 1, (n, v)), rng.uniform(0.1, 0.9, n)
    x = np.array([0, 1, 3, 4, 5])[rng.integers(0, 5, n)]
    z = np.where(rng.uniform(size=n) < 0.5, 2, x) if make is Masked else rng.integers(0, v, n)
    logits, t, x, z = map(jnp.asarray, (logits, t, x, z))
    true = jnp.log(jax.nn.one_hot(x, v))
    p, q = (
        np.exp(process.log_posterior(pred, z, t, t - h))
        for pred in (true, process.read(logits, z, t))
    )
    gap = (p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1))).sum(-1) / h
    np.testing.assert_allclose(process.bound(logits, x, z, t), gap, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_float32_holds_at_small_times():
    rng = np.random.default_rng(2)
    v, n = 50, 400
    logits, x, z = rng.normal(0, 1, (n, v)), *rng.integers(0, v, (2, n))
    z[:200] = x[:200]
    process = Uniform(tokens=TokenSpace(size=v))
    logits = logits.astype(np.float32)
    t = np.full(n, 1e-3, np.float32)
    exact = process.bound(jnp.asarray(logits, jnp.float64), x, z, jnp.asarray(t, jnp.float64))
    with jax.enable_x64(False):
        single = process.bound(jnp.asarray(logits), *map(jnp.asarray, (x, z, t)))
        assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def law():
    return Law(4, 3, 3)


def exact_masked_nelbo(law, logp, make=Masked):
    """sum over patterns of Beta integral * masked cross-entropies, by Masked.bound, [states x]."""
    process = make(tokens=law.tokens)
    out = np.zeros(len(law.x))
    for pattern in np.ndindex(*[2] * law.length):
        on = np.array(pattern, bool)
        n = on.sum()
        if not n:
            continue
        # int t^n (1-t)^(L-n) dt/t, with eps = 0: the bound's 1/t is undone at t = 1.
        weight = beta(n, law.length - n + 1)
        z = np.where(on, law.vocabulary, law.x)
        rows = logp[index(z, law.size)].reshape(-1, law.size)
        flat = lambda a: jnp.asarray(a.reshape(-1))
        loss = process.bound(
            jnp.asarray(np.maximum(rows, -1e4)), flat(law.x), flat(z), jnp.ones(z.size)
        )
        out += weight * np.asarray(loss).reshape(law.x.shape).sum(1)
    return out


def test_masked_nelbo_equals_nll_of_every_sequence(law):
    exact = log_table(law.conditionals(0.5, leave_one_out=True))
    np.testing.assert_allclose(exact_masked_nelbo(law, exact), -np.log(law.p), rtol=1e-12)
    other = exact + np.random.default_rng(0).normal(0, 0.3, exact.shape)
    assert law.p @ exact_masked_nelbo(law, other) > law.p @ -np.log(law.p) + 1e-3


@pytest.mark.parametrize(
    "times", [UniformTimes(eps=0.0), ImportanceTimes(eps=1e-6)], ids=["uniform", "importance"]
)
def test_nelbo_estimates_the_nll(law, times):
    """Monte Carlo through the real objective, mean over x ~ p_0 within 4 standard errors."""
    exact = log_table(law.conditionals(0.5, leave_one_out=True))
    process = Masked(schedule=LogLinear(eps=0.0), tokens=law.tokens)
    objective = Nelbo(process=process, times=times)
    n = 40_000
    rng = np.random.default_rng(3)
    z0 = law.x[rng.choice(len(law.x), n, p=law.p)]
    batch = Batch(
        z0=jnp.asarray(z0),
        keep=jnp.zeros(z0.shape, bool),
        weight=jnp.ones(z0.shape),
        cond=Cond(),
        index=jnp.arange(n),
        total=n,
        norm=jnp.asarray(float(n)),
    )
    run = jax.jit(lambda d, key: objective(d, batch, key))
    loss = run(table_denoiser(law, exact), jax.random.key(0))
    each = np.asarray(loss.metrics["loss_B"])
    np.testing.assert_allclose(each.mean(), loss.total, rtol=1e-6)
    error = abs(each.mean() + law.p @ np.log(law.p))
    assert error < 4 * each.std() / np.sqrt(n), error


@pytest.fixture(scope="module")
def uniform_law():
    return Law(7, 3, 2, masked=False)


def uniform_integral(law, process, model, points=200):
    """E_z of the bound integrated over t by Gauss-Legendre in sqrt(t), [states x]."""
    node, weight = np.polynomial.legendre.leggauss(points)
    node, weight = (node + 1) / 2, weight / 2
    out = np.zeros(len(law.x))
    bound = jax.jit(process.bound)
    for u, w in zip(node, weight):
        t = u * u
        alpha = float(process.schedule.alpha(t))
        logp = model(alpha)
        pairs = (len(law.z), len(law.x), law.length)
        rows = np.broadcast_to(logp[:, None], (*pairs, law.size)).reshape(-1, law.size)
        x = np.broadcast_to(law.x[None], pairs).reshape(-1)
        z = np.broadcast_to(law.z[:, None], pairs).reshape(-1)
        loss = bound(jnp.asarray(rows), *map(jnp.asarray, (x, z)), jnp.full(x.shape, t))
        loss = np.asarray(loss).reshape(pairs).sum(-1)
        out += 2 * u * w * np.sum(law.forward(alpha) * loss, 0)
    return out


def test_uniform_nelbo_and_prior_term_equal_the_nll(uniform_law):
    """On average over p_0: the bound misses only KL(p_1 || uniform), which is part of the sum."""
    law = uniform_law
    process = Uniform(tokens=law.tokens)
    ideal = lambda a: log_table(law.conditionals(a, leave_one_out=True))
    prior = law.length * float(process.boundary(jnp.float64))
    nelbo = uniform_integral(law, process, ideal) + prior
    end = law.forward(float(process.schedule.alpha(1.0))) @ law.p
    slack = np.sum(end * np.log(end * len(law.z)))  # KL of the true p_1 to uniform
    nll = -law.p @ np.log(law.p)
    assert abs(law.p @ nelbo - nll - slack) < 1e-6
    posterior = lambda a: log_table(law.conditionals(a, leave_one_out=False))
    assert law.p @ uniform_integral(law, process, posterior, 60) > law.p @ nelbo + 1e-3


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_uniform_plug_in_posterior_needs_leave_one_out(uniform_law, leave_one_out):
    """Marginal over x of q(z_s^l | z_t, x) equals the plug-in iff x_theta is leave-one-out."""
    law = uniform_law
    process = Uniform(tokens=law.tokens)
    t, s = 0.6, 0.35
    alpha = float(process.schedule.alpha(t))
    z = jnp.asarray(law.z.reshape(-1))
    spread = lambda a: jnp.full(z.shape, a)
    pred = law.conditionals(alpha, leave_one_out).reshape(-1, law.size)
    plug = np.exp(process.log_posterior(jnp.asarray(np.log(pred)), z, spread(t), spread(s)))
    full = law.conditionals(alpha, False).reshape(-1, law.size)
    mixture = np.zeros_like(plug)
    for v in range(law.size):
        hot = jnp.log(jnp.broadcast_to(jnp.eye(law.size)[v], plug.shape))
        kernel = np.exp(process.log_posterior(hot, z, spread(t), spread(s)))
        mixture += full[:, v : v + 1] * kernel
    np.testing.assert_allclose(mixture.sum(-1), 1, rtol=1e-12)
    gap = np.abs(plug - mixture).max()
    assert gap < 1e-12 if leave_one_out else gap > 1e-3


def test_uniform_bound_is_minimised_by_leave_one_out(uniform_law):
    """Gradient of the expected bound with respect to the logits vanishes there."""
    law = uniform_law
    process = Uniform(tokens=law.tokens)
    t = 0.5
    alpha = float(process.schedule.alpha(t))
    joint = law.forward(alpha) * law.p
    pairs = (len(law.z), len(law.x), law.length)
    x = jnp.asarray(np.broadcast_to(law.x[None], pairs).reshape(-1))
    z = jnp.asarray(np.broadcast_to(law.z[:, None], pairs).reshape(-1))

    @jax.jit
    def expected(logits):
        rows = jnp.broadcast_to(logits[:, None], (*pairs, law.size)).reshape(-1, law.size)
        weight = jnp.broadcast_to(jnp.asarray(joint)[..., None], pairs).reshape(-1)
        head = lambda a: a
        fn = lambda a, args: process.bound(a, *args)
        return rows_loss(fn, head, rows, (x, z, jnp.full(x.shape, t)), weight)[0]

    best = np.log(law.conditionals(alpha, True))
    assert np.abs(jax.grad(expected)(jnp.asarray(best))).max() < 1e-12
    other = np.log(law.conditionals(alpha, False))
    assert np.abs(jax.grad(expected)(jnp.asarray(other))).max() > 1e-3
    assert expected(jnp.asarray(other)) > expected(jnp.asarray(best)) + 1e-4


def test_the_boundary_is_the_mean_of_what_is_drawn():
    """KL(q(z_1 | x) || 1 / V), where q keeps the token with probability alpha_1."""
    process = Uniform(tokens=TokenSpace(size=4), schedule=Cosine(eps=0.05))
    own = np.full(4, 0.95 / 4)
    own[1] += 0.05
    drawn = process.drawn_boundary(jnp.full(4, 1), jnp.arange(4))
    np.testing.assert_allclose(drawn, np.log(4 * own), rtol=1e-12)
    np.testing.assert_allclose(own @ drawn, process.boundary(jnp.float64), rtol=1e-12)
