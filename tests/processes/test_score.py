"""Score entropy against its definition, against MDLM and UDLM, and on enumerated laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace
from ldd_jax.oracle.laws import Law
from ldd_jax.processes import Masked, MaskedScore, Uniform, UniformScore
from ldd_jax.schedules import Cosine, Geometric, LogLinear
from tests.lab import log_table, transition
from tests.parity.numpy_reference import log_softmax
from tests.processes.test_bounds import exact_masked_nelbo, uniform_integral

pytestmark = pytest.mark.usefixtures("x64")

V, MASK, N = 7, 3, 60
SYMBOLS = np.array([v for v in range(V) if v != MASK])
SCHEDULES = [LogLinear(), Cosine(), Geometric()]


def rows(seed=0, masked=True):
    rng = np.random.default_rng(seed)
    logits, t = rng.normal(0, 1.5, (N, V)), rng.uniform(0.05, 0.99, N)
    x = SYMBOLS[rng.integers(0, V - 1, N)] if masked else rng.integers(0, V, N)
    z = np.where(rng.uniform(size=N) < 0.7, MASK, x) if masked else rng.integers(0, V, N)
    z = z if masked else np.where(np.arange(N) < 20, x, z)
    return tuple(map(jnp.asarray, (logits, x, z, t)))


def kernel(alpha, masked):
    """q(z | x), [x, z]."""
    noise = np.eye(V)[MASK] if masked else np.full(V, 1 / V)
    return alpha * np.eye(V) + (1 - alpha) * noise


def score_entropy(log_s, x, z, alpha, masked):
    """sum_{y != z} Q(y, z) (s - r log s + K(r)), eq. 8 of SEDD, term by term."""
    q = kernel(alpha, masked)[x]
    rate = np.zeros((V, V)) + (np.eye(V)[MASK] if masked else 1 / V)  # rows y: from y to z
    total = 0.0
    for y in range(V):
        if y == z or rate[y, z] == 0 or (masked and z == MASK and y == MASK):
            continue
        s, r = np.exp(log_s[y]), q[y] / q[z]
        total += rate[y, z] * (s - (r * np.log(s) if r else 0) + (r * (np.log(r) - 1) if r else 0))
    return total


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("scaled", [True, False])
def test_masked_bound_is_the_denoising_score_entropy(schedule, scaled):
    logits, x, z, t = rows()
    tokens = TokenSpace(size=V, mask=MASK)
    process = MaskedScore(schedule=schedule, tokens=tokens, scale_by_sigma=scaled)
    log_s = np.asarray(process.log_score(logits, z, t))
    assert (log_s[np.arange(N), z] == 0).all()
    shift = np.log(np.expm1(schedule.sigma(t))) + np.log(V - 1) if scaled else np.zeros(N)
    other = np.arange(V) != np.asarray(z)[:, None]
    np.testing.assert_allclose(log_s[other], (logits - shift[:, None])[other], rtol=1e-9, atol=1e-9)
    alpha, rate = schedule.alpha(t), schedule.d_sigma(t)
    wanted = [
        rate[i] * score_entropy(log_s[i], x[i], z[i], alpha[i], True) if z[i] == MASK else 0
        for i in range(N)
    ]
    np.testing.assert_allclose(process.bound(logits, x, z, t), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_uniform_bound_is_the_denoising_score_entropy(schedule):
    logits, x, z, t = rows(masked=False)
    process = UniformScore(schedule=schedule, tokens=TokenSpace(size=V))
    log_s = np.asarray(process.log_score(logits, z, t))
    alpha, rate = schedule.alpha(t), schedule.d_sigma(t)
    wanted = [rate[i] * score_entropy(log_s[i], x[i], z[i], alpha[i], False) for i in range(N)]
    np.testing.assert_allclose(process.bound(logits, x, z, t), wanted, rtol=1e-8, atol=1e-8)


def log_ratios(clean, z, alpha):
    """log s_y = log xbar_y - log xbar_z, xbar = V alpha x_theta + 1 - alpha, [..., V]."""
    log = np.log(clean.shape[-1] * alpha * clean + 1 - alpha)
    return log - np.take_along_axis(log, np.asarray(z)[..., None], -1)


def test_masked_score_entropy_is_mdlm_plus_an_excess():
    """Z2: k (S - 1 - log S) above MDLM of the normalised score, k = -alpha'/(1 - alpha)."""
    logits, x, z, t = rows()
    tokens = TokenSpace(size=V, mask=MASK)
    score, mdlm = MaskedScore(tokens=tokens), Masked(tokens=tokens)
    c = jnp.exp(logits[:, SYMBOLS]) / (V - 1)
    total = c.sum(-1)
    excess = jnp.where(z == MASK, mdlm.schedule.weight(t) * (total - 1 - jnp.log(total)), 0)
    found, base = score.bound(logits, x, z, t), mdlm.bound(logits, x, z, t)
    np.testing.assert_allclose(found, base + excess, rtol=1e-12, atol=1e-12)
    assert (excess[z == MASK] > 1e-4).all()
    normalised = logits - jnp.log(total)[:, None]
    found = score.bound(normalised, x, z, t)
    np.testing.assert_allclose(found, base, rtol=1e-12, atol=1e-12)


def test_uniform_score_entropy_of_a_clean_prediction_is_udlm():
    """Z3: s = xbar(x_theta) / xbar_z(x_theta)."""
    logits, x, z, t = rows(masked=False)
    tokens = TokenSpace(size=V)
    alpha = np.asarray(LogLinear().alpha(t))[:, None]
    log_s = log_ratios(np.exp(log_softmax(np.asarray(logits))), z, alpha)
    found = UniformScore(tokens=tokens).bound(jnp.asarray(log_s), x, z, t)
    np.testing.assert_allclose(found, Uniform(tokens=tokens).bound(logits, x, z, t), rtol=1e-9)


@pytest.mark.parametrize("make", [MaskedScore, UniformScore])
def test_float32_holds_at_small_times(make):
    masked = make is MaskedScore
    logits, x, z, _ = rows(2, masked)
    process = make(tokens=TokenSpace(size=V, mask=MASK if masked else None))
    t = np.full(N, 1e-4)
    exact = process.bound(logits, x, z, jnp.asarray(t))
    single = [jnp.asarray(np.asarray(a), jnp.float32) for a in (logits, t)]
    with jax.enable_x64(False):
        found = process.bound(single[0], x, z, single[1])
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-4)


def test_masked_nelbo_of_the_exact_score_is_the_nll():
    law = Law(4, 3, 3)
    exact = np.log(np.maximum(law.conditionals(0.5, leave_one_out=True), 1e-300))
    scaled = lambda logp: logp + np.log(law.size - 1)
    make = MaskedScore
    found = exact_masked_nelbo(law, scaled(exact), make)
    np.testing.assert_allclose(found, -np.log(law.p), rtol=1e-12)
    # Any other score is worse, one that only misses the normalisation too.
    for other in (exact + 0.3, exact + np.random.default_rng(0).normal(0, 0.3, exact.shape)):
        worse = law.p @ exact_masked_nelbo(law, scaled(other), make)
        assert worse > law.p @ -np.log(law.p) + 1e-3


def test_uniform_nelbo_of_the_exact_score_is_the_nll():
    law = Law(7, 3, 2, masked=False)
    process = UniformScore(tokens=law.tokens)

    def ideal(alpha):
        clean = law.conditionals(alpha, leave_one_out=True)
        return log_ratios(clean, law.z, alpha)

    nelbo = uniform_integral(law, process, ideal) + law.length * float(
        process.boundary(jnp.float64)
    )
    end = law.marginal(float(process.schedule.alpha(1.0)))
    slack = np.sum(end * np.log(end * len(law.z)))  # KL of the true p_1 to uniform
    assert abs(law.p @ nelbo + law.p @ np.log(law.p) - slack) < 1e-6


@pytest.mark.parametrize("masked", [True, False])
def test_the_tweedie_step_of_the_exact_score_is_the_posterior(masked):
    """Each position on its own; `ancestral` and `analytic` agree then."""
    law = Law(5, 3, 2, masked=masked)
    t, s = 0.6, 0.35
    clean = law.conditionals(1 - 0.999 * t, leave_one_out=True)
    alpha = 1 - 0.999 * t
    if masked:
        score, base = MaskedScore(tokens=law.tokens), Masked(tokens=law.tokens)
        logits = log_table(clean) + np.log(law.size - 1)
    else:
        score, base = UniformScore(tokens=law.tokens), Uniform(tokens=law.tokens)
        logits = log_ratios(clean, law.z, alpha)
    for end in (s, None):
        ours = transition(law, score, logits, t, end)
        np.testing.assert_allclose(ours, transition(law, base, log_table(clean), t, end), atol=1e-9)
    n = len(law.z) * law.length
    z, spread = jnp.asarray(law.z.reshape(-1)), lambda a: jnp.full(n, a)
    pred = score.read(jnp.asarray(np.maximum(logits, -1e4).reshape(n, -1)), z, spread(t))
    tweedie = score.log_analytic(pred, z, spread(t), spread(s))
    posterior = score.log_posterior(pred, z, spread(t), spread(s))
    np.testing.assert_allclose(np.exp(tweedie), np.exp(posterior), atol=1e-9)


@pytest.mark.parametrize("masked", [True, False])
def test_the_tweedie_step_of_a_clean_prediction_is_the_posterior(masked):
    """At every row: a token that is no mask stays, whoever asks for its law."""
    logits, _, z, t = rows(5, masked)
    make, tokens = Masked if masked else Uniform, TokenSpace(size=V, mask=MASK if masked else None)
    process = make(tokens=tokens)
    pred = process.read(logits, z, t)
    tweedie = np.exp(process.log_analytic(pred, z, t, t / 3))
    np.testing.assert_allclose(tweedie.sum(-1), 1, rtol=1e-9)
    np.testing.assert_allclose(tweedie, np.exp(process.log_posterior(pred, z, t, t / 3)), atol=1e-9)


@pytest.mark.parametrize("make", [MaskedScore, UniformScore])
def test_free_scores_make_laws(make):
    """Of scores that belong to no distribution: all laws are normalised, the clipped one too."""
    masked = make is MaskedScore
    logits, _, z, t = rows(3, masked)
    process = make(tokens=TokenSpace(size=V, mask=MASK if masked else None))
    pred = process.read(logits + 2, z, t)
    laws = [
        process.log_analytic(pred, z, t, t / 4),
        process.log_posterior(pred, z, t, t / 4),
        process.log_posterior(pred, z, t, None),
        process.log_conditional(pred, z, t),
        process.clean(pred, z, t),
    ]
    for law in laws:
        np.testing.assert_allclose(np.exp(law).sum(-1), 1, rtol=1e-9)
    if masked:
        assert (np.exp(laws[2])[:, MASK] == 0).all() and (np.exp(laws[0])[:, MASK] == 0).any()
