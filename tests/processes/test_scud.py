"""SCUD against sums over all counts: its bound is the likelihood, whatever the kernel and gamma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import poisson

from ldd_jax.core.draws import example_keys
from ldd_jax.core.types import TokenSpace
from ldd_jax.objectives import EventTimes, GridTimes, Nelbo, UniformTimes
from ldd_jax.processes import (
    BandKernel,
    GraphKernel,
    Masked,
    MaskedKernel,
    NeighbourKernel,
    Scud,
    Uniform,
    UniformKernel,
)
from ldd_jax.processes.kernels import nearest_neighbours
from ldd_jax.schedules import Cosine, LinearSigma, LogLinear, Polynomial
from tests.lab import Law, jit

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(8)
HALF = RNG.uniform(0.2, 1, (3, 3))
SYMMETRIC = GraphKernel(matrix=tuple(map(tuple, HALF + HALF.T)))
SKEW = GraphKernel(matrix=tuple(map(tuple, RNG.uniform(0.2, 1, (3, 3)))))
KERNELS = {
    "uniform 0": (UniformKernel(), 0.0),
    "uniform .6": (UniformKernel(), 0.6),
    "masked": (MaskedKernel(), 0.0),
    "graph 0": (SYMMETRIC, 0.0),
    "graph .5": (SYMMETRIC, 0.5),
    "one way": (SKEW, 0.25),
}


def made(kernel, gamma, size=3, schedule=None):
    schedule = LinearSigma(sigma_max=2.0) if schedule is None else schedule
    return Scud(kernel=kernel, gamma=gamma, schedule=schedule, tokens=TokenSpace(size=size))


def matrix(kernel, gamma, size):
    """K by its definition."""
    rates = np.ones((size, size)) if isinstance(kernel, UniformKernel) else kernel.rates(size)
    rates = rates * (1 - np.eye(size))
    generator = (rates - np.diag(rates.sum(1))) / rates.sum(1).max()
    return np.eye(size) + (1 - gamma) * generator, generator


def powers(process, most):
    """K^n of the production code, [n, from, to], both ways of asking for it."""
    size = process.tokens.size
    n = jnp.repeat(jnp.arange(most + 1.0), size)
    state = jnp.tile(jnp.arange(size), most + 1)
    one = process.one_hot_prediction(state, state, n)
    forward = np.exp(process.jumps.forward(one, n)).reshape(most + 1, size, size)
    back = np.exp(process.jumps.back(state, n)).reshape(most + 1, size, size).swapaxes(1, 2)
    np.testing.assert_allclose(forward, back, rtol=1e-12, atol=0)
    return forward


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel, gamma, size",
    [(UniformKernel(), g, v) for g, v in ((0.0, 3), (0.1, 7), (1 / 3, 3), (0.99, 3), (0.3, 2))]
    + [(BandKernel(), 0.0, 6), (BandKernel(width=2, wrap=True), 0.2, 7), (SKEW, 0.25, 3)]
    + [(BandKernel(width=3, shape="gaussian"), 0.0, 9)],
)
def test_powers_and_their_poisson_mean(kernel, gamma, size):
    """K^n by multiplication, zeros exactly where they are; E_S K^S = exp(sigma L / gap)."""
    process = made(kernel, gamma, size)
    one, generator = matrix(kernel, gamma, size)
    found, expected = powers(process, 40), np.eye(size)
    for n in range(41):
        np.testing.assert_allclose(found[n], expected, rtol=1e-11, atol=1e-16)
        np.testing.assert_array_equal((found[n] == 0)[expected == 0], True)
        expected = expected @ one
    mean = process.last()
    most = int(mean + 15 * np.sqrt(mean) + 40)
    total = np.tensordot(poisson.pmf(np.arange(most + 1), mean), powers(process, most), 1)
    np.testing.assert_allclose(total, expm(mean * (1 - gamma) * generator), atol=1e-12)
    # The slowest of what is left decays as alpha(t).
    rest = np.sort(np.linalg.eigvals(generator).real)[-2]
    assert mean * (1 - gamma) * rest == pytest.approx(-2.0)


def test_zeros_hold_in_float32_and_small_powers_keep_their_digits():
    """20 steps along 16 places: 3^-15 from end to end, 0 where the walk cannot be."""
    with jax.enable_x64(False):
        process = made(BandKernel(), 0.0, 16)
        n, place = jnp.full(16, 15.0), jnp.arange(16)
        row = np.exp(process.jumps.forward(process.one_hot_prediction(place, place, n), n))
        fewer = np.exp(process.jumps.forward(process.one_hot_prediction(place, place, n), n - 1))
    exact = np.linalg.matrix_power(matrix(BandKernel(), 0.0, 16)[0], 15)
    assert exact[0, 15] == pytest.approx(0.5**15)
    np.testing.assert_allclose(row, exact, rtol=3e-6, atol=0)
    assert fewer[0, 15] == 0


TOP = 32  # Poisson(3.4) exceeds it with probability 1e-20
LAW = Law(11, 3, 2, masked=False)
SMALL = 1e-300


def count_tables(process, most):
    """q(z | x, S) of a position, [S, x, z]."""
    return powers(process, most)


def conditionals(law, one, other_z, other_s, place):
    """p(x_place | the other's z and S), [..., V]."""
    evidence = one[other_s, :, other_z]  # [..., x of the other]
    joint = law.p.reshape(3, 3)
    joint = joint if place == 0 else joint.T
    weight = evidence @ joint.T
    return weight / weight.sum(-1, keepdims=True)


def bounds(process, law, most, whole=False):
    """sum_i S_i KL_i averaged over z given x and S, [x, S_1, S_2], by the production bound."""
    one = count_tables(process, most)
    s = np.arange(most + 1)
    x, z, s1, s2 = np.meshgrid(np.arange(9), np.arange(9), s, s, indexing="ij")
    xs, zs, ss = law.x[x], law.z[z], np.stack([s1, s2], -1)
    weight = one[s1, xs[..., 0], zs[..., 0]] * one[s2, xs[..., 1], zs[..., 1]]
    run, out = jit(process.bound), 0
    for i in (0, 1):  # the same number of rows every time: one program
        p = conditionals(law, one, zs[..., 1 - i], ss[..., 1 - i], i)
        if whole:
            p = p * one[ss[..., i], :, zs[..., i]]
            p = p / p.sum(-1, keepdims=True)
        flat = lambda a, kind, i=i: jnp.asarray(a[..., i].reshape(-1), kind)
        rows = run(
            jnp.log(jnp.maximum(p, SMALL)).reshape(-1, 3),
            flat(xs, jnp.int32),
            flat(zs, jnp.int32),
            flat(ss, float),
        )
        out = out + np.where(weight > 0, np.asarray(rows).reshape(x.shape), 0)
    return np.sum(weight * out, axis=1)


def integral(table, mean, points=80):
    """int_0^m E_(S ~ Poisson(l)^2)[table] dl / l, [x]."""
    node, share = np.polynomial.legendre.leggauss(points)
    total = 0
    for l, w in zip((node + 1) / 2 * mean, share / 2 * mean):
        p = poisson.pmf(np.arange(table.shape[1]), l)
        total = total + w / l * np.einsum("xab,a,b->x", table, p, p)
    return total


def prior_terms(process, law, most):
    """E_S of KL(q(z | x, S) || prior) and of KL(q(z | x, S) || q(z | S)) at t = 1, [x] each."""
    one = count_tables(process, most)
    s = np.arange(most + 1)
    p = poisson.pmf(s, process.last())
    weight = p[:, None] * p
    q = np.einsum("axz,byw->xyabzw", one, one).reshape(9, most + 1, most + 1, 9)
    rest = np.linalg.matrix_power(one[1], 999)[0]
    to_prior = np.where(q > 0, q * np.log(np.maximum(q, SMALL) / np.kron(rest, rest)), 0)
    marginal = np.einsum("x,xabz->abz", law.p, q)
    to_truth = np.where(q > 0, q * np.log(np.maximum(q, SMALL) / np.maximum(marginal, SMALL)), 0)
    return tuple(np.einsum("ab,xabz->x", weight, a) for a in (to_prior, to_truth))


@pytest.mark.parametrize("name", KERNELS)
def test_bound_and_prior_are_the_likelihood_of_every_text(name):
    """bound + prior = NLL + E[KL(q(z | x, S) || pi) - KL(q(z | x, S) || q(z | S))], every x."""
    process = made(*KERNELS[name])
    most = TOP
    prior, truth = prior_terms(process, LAW, most)
    path = integral(bounds(process, LAW, most), process.last())
    residual = path + prior - (-np.log(LAW.p) + prior - truth)
    assert np.abs(residual).max() <= 1e-10, residual
    # The prior term of production is that of the worst x; of every x where K treats all alike.
    told = 2 * float(process.boundary(jnp.float64))
    assert told >= prior.max() - 1e-10
    if not isinstance(process.kernel, GraphKernel):
        np.testing.assert_allclose(prior, told, rtol=1e-6)


def test_the_posterior_given_its_own_token_is_not_the_optimum():
    """p(x^i | all of z, S) in the place of the leave-one-out law: far too high (gamma = .6)."""
    process = made(*KERNELS["uniform .6"])
    most = TOP
    ideal, whole = (LAW.p @ integral(bounds(process, LAW, most, w), process.last()) for w in (0, 1))
    assert 0.1 < whole - ideal < 0.4


@pytest.mark.parametrize("kernel, gamma", [(UniformKernel(), 1 / 5), (MaskedKernel(), 0.0)])
@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=["linear", "cosine"])
def test_gamma_one_over_v_is_masked_diffusion(kernel, gamma, schedule):
    """Summed over S, the factor of `times: events` times the bound is MDLM's integrand, any t."""
    size = 5
    scud = made(kernel, gamma, size, schedule)
    masked = Masked(schedule=schedule, tokens=TokenSpace(size=size + 1, mask=size))
    rng = np.random.default_rng(0)
    logits, x = rng.normal(0, 2, (4, size)), rng.integers(0, size, 4)
    n = np.arange(40)
    grid = [a.reshape(-1) for a in np.meshgrid(n, np.arange(4), np.arange(size), indexing="ij")]
    rows = scud.bound(
        jnp.asarray(logits[grid[1]]), jnp.asarray(x[grid[1]]), jnp.asarray(grid[2]),
        jnp.asarray(grid[0], float),
    )  # fmt: skip
    given = powers(scud, 39)[grid[0], x[grid[1]], grid[2]]
    by_count = (np.asarray(rows) * given).reshape(40, 4, size).sum(-1)
    np.testing.assert_allclose(by_count[2:], 0, atol=1e-12)
    for t in (0.1, 0.5, 0.9):
        t_B, factor = EventTimes(eps=0.0)(jnp.asarray([1 - t]), schedule)
        assert float(t_B[0]) == pytest.approx(t)
        found = float(factor[0]) * poisson.pmf(n, float(scud.mean(t_B)[0])) @ by_count
        extended = jnp.concatenate([jnp.asarray(logits), jnp.full((4, 1), -1e4)], 1)
        z, at = jnp.full(4, size), jnp.full(4, t)
        theirs = masked.bound(extended, jnp.asarray(x), z, at) * schedule.noise(jnp.asarray(t))
        np.testing.assert_allclose(found, theirs, rtol=1e-10)
        assert poisson.sf(0, float(scud.mean(t_B)[0])) == pytest.approx(float(schedule.noise(t)))


@pytest.mark.slow
def test_gamma_towards_one_is_uniform_diffusion():
    """A network that is told no counts: SCUD's bound tends to UDLM's as O(1 - gamma)."""
    size, schedule = 3, LinearSigma(sigma_max=3.0)
    logp = np.log([0.6, 0.3, 0.1])
    node, share = (a / 2 for a in np.polynomial.legendre.leggauss(60))
    node, share = (node + 0.5) ** 2, share * 2 * (node + 0.5)  # t log t at 0
    x, z = (a.reshape(-1) for a in np.meshgrid(np.arange(3), np.arange(3), indexing="ij"))
    uniform = Uniform(schedule=schedule, tokens=TokenSpace(size=size))
    given = lambda c: np.where(x == z, c[:, None], 0) + (1 - c[:, None]) / size
    repeated = lambda a, times: jnp.asarray(np.tile(a, (times,) + (1,) * (a.ndim - 1)))
    three = [repeated(a, 60) for a in (np.tile(logp, (9, 1)), x, z)]
    rows = jit(uniform.bound)(*three, jnp.asarray(np.repeat(node, 9))).reshape(-1, 9)
    limit = share @ (given(np.exp(-3 * node)) * rows).sum(1) / 3
    apart = []
    for gamma in (0.9, 0.99, 0.997):
        process = made(UniformKernel(), gamma, size, schedule)
        most = int(process.last() + 12 * np.sqrt(process.last()) + 20)
        n = np.arange(most + 1)
        three = [repeated(a, most + 1) for a in (np.tile(logp, (9, 1)), x, z)]
        rows = jit(process.bound)(*three, jnp.asarray(np.repeat(n, 9), float)).reshape(-1, 9)
        by_count = (given((1 - process.jumps.gap) ** n) * rows).sum(1) / 3
        mean = process.last()
        total = sum(w / t * poisson.pmf(n, mean * t) @ by_count for t, w in zip(node, share))
        apart.append(float(total - limit))
    # First order in 1 - gamma, and the limit itself after taking that order off.
    assert apart[1] / apart[2] == pytest.approx(0.01 / 0.003, rel=0.05)
    assert abs(apart[2] - (apart[1] - apart[2]) * 3 / 7) < 2e-5


def test_prior_term_of_the_specification():
    """8 states, gamma 0, m(1) = log 1000: 3e-3 nats."""
    sigma = np.log(1000) * 8 / 7
    process = made(UniformKernel(), 0.0, 8, LinearSigma(sigma_max=sigma))
    assert process.last() == pytest.approx(np.log(1000))
    assert float(process.boundary(jnp.float64)) == pytest.approx(3.0e-3, rel=0.02)


@pytest.mark.parametrize("name", ["uniform 0", "uniform .6", "graph 0", "one way"])
def test_corruption_draws_what_the_bound_supposes(name):
    """Counts and states over 40,000 positions, within 4.5 standard errors; kept ones stand."""
    process = made(*KERNELS[name])
    keys = example_keys(jax.random.key(3), jnp.arange(400))
    z0 = jnp.broadcast_to(jnp.arange(100) % 3, (400, 100))
    keep = jnp.zeros(z0.shape, bool).at[:, :10].set(True)
    z, count = map(np.asarray, jit(process.corrupt)(keys, z0, jnp.full(400, 0.4), keep))
    np.testing.assert_array_equal(z[:, :10], z0[:, :10])
    assert (count[:, :10] == 0).all()
    x, z, count = (np.asarray(a)[:, 10:].reshape(-1) for a in (z0, z, count))
    mean = float(process.mean(jnp.asarray(0.4)))
    one = powers(process, 6)
    for n in range(5):
        share, p = np.mean(count == n), poisson.pmf(n, mean)
        assert abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / len(count))
        for a in range(3):
            at = (count == n) & (x == a)
            for b, q in enumerate(one[n, a]):
                assert abs(np.mean(z[at] == b) - q) <= 4.5 * np.sqrt(q * (1 - q) / at.sum()) + 1e-12
    rest, s = jit(lambda keys: process.prior(keys, 100))(keys)
    assert s.shape == (400, 100)
    assert abs(float(jnp.mean(s)) - process.last()) < 4.5 * np.sqrt(process.last() / 40_000)
    law = powers(process, 300)[-1, 0]
    share = np.bincount(np.asarray(rest).reshape(-1), minlength=3) / 40_000
    assert (np.abs(share - law) < 4.5 * np.sqrt(law * (1 - law) / 40_000)).all()


@pytest.mark.slow
def test_float32_agrees_with_float64():
    """Rows of many kernels and counts, and their gradient is finite."""
    rng = np.random.default_rng(1)
    keys = example_keys(jax.random.key(0), jnp.arange(300))
    for kernel, gamma in ((UniformKernel(), 0.0), (UniformKernel(), 0.97), (BandKernel(), 0.0)):
        process = made(kernel, gamma, 9, LogLinear())
        logits = rng.normal(0, 3, (300, 9))
        x, s = rng.integers(0, 9, 300), rng.poisson(rng.choice([0.5, 3, 40], 300)).astype(float)
        z = process.jumps.jump(keys, jnp.asarray(x)[:, None], jnp.asarray(s)[:, None])[:, 0]
        exact = jit(process.bound)(jnp.asarray(logits), jnp.asarray(x), z, jnp.asarray(s))
        assert np.isfinite(exact).all() and (np.asarray(exact) >= 0).all()
        assert (np.asarray(exact)[s == 0] == 0).all()
        with jax.enable_x64(False):
            both = jit(jax.vmap(jax.value_and_grad(one_row(process))))
            single, slope = both(*map(jnp.asarray, (logits, x, z, s)))
            assert single.dtype == slope.dtype == jnp.float32
        np.testing.assert_allclose(single, exact, rtol=2e-4, atol=2e-4)
        assert np.isfinite(slope).all() and np.abs(slope).max() > 0.01


def one_row(process):
    """The bound of one row."""
    return lambda logits, *args: process.bound(logits[None], *(a[None] for a in args))[0]


def test_nearest_neighbours_of_an_embedding():
    """Two clusters: neighbours stay inside, and the kernel joins them by `anywhere` alone."""
    rng = np.random.default_rng(0)
    centre = np.repeat(np.eye(2), 4, axis=0) * 5
    near = nearest_neighbours(centre + rng.normal(0, 0.3, (8, 2)), 3)
    assert [set(row) for row in near] == [set(range(4)) - {i} for i in range(4)] + [
        set(range(4, 8)) - {i} for i in range(4, 8)
    ]
    rates = NeighbourKernel(near=near, anywhere=0.1).rates(9)
    np.testing.assert_allclose(rates, rates.T)
    assert rates[0, 1] == pytest.approx(0.9 / 3 + 0.1 / 9)
    assert rates[0, 5] == rates[0, 8] == pytest.approx(0.1 / 9)
    with pytest.raises(ValueError, match="give 1 to 7"):
        nearest_neighbours(centre, 8)


REFUSED = [
    (dict(gamma=1.0), "must lie in"),
    (dict(kernel=MaskedKernel(), gamma=0.2), "gamma 1 / V"),
    (dict(kernel=BandKernel(wrap=True), size=4), "visit in turn"),
    (dict(kernel=GraphKernel(matrix=tuple(map(tuple, np.kron(np.eye(2), np.ones((2, 2)))))),
          size=4), "fall into parts"),
    (dict(kernel=GraphKernel(matrix=((0.0, 1.0), (0.0, 0.0))), size=2), "another one to go to"),
    (dict(kernel=SYMMETRIC, size=4), "has 3 states"),
    (dict(kernel=BandKernel(), size=4000), "more than 2048"),
    (dict(gamma=0.99999), "until it is forgotten"),
    (dict(schedule=Polynomial()), "begins with noise"),
    (dict(schedule=LogLinear(eps=0.0)), "leaves nothing"),
]  # fmt: skip


@pytest.mark.parametrize("given, why", REFUSED)
def test_what_cannot_be_is_refused_in_words(given, why):
    given = {"kernel": UniformKernel(), "gamma": 0.0, "size": 3, "schedule": LogLinear(), **given}
    with pytest.raises(ValueError, match=why) as caught:
        made(**given)
    assert "\n" not in str(caught.value)


def test_as_many_events_as_there_may_be_and_no_more(monkeypatch):
    most = made(UniformKernel(), 0.5).most()
    monkeypatch.setattr("ldd_jax.processes.scud.MOST_EVENTS", most)
    assert made(UniformKernel(), 0.5).most() == most
    monkeypatch.setattr("ldd_jax.processes.scud.MOST_EVENTS", most - 1)
    with pytest.raises(ValueError, match="until it is forgotten"):
        made(UniformKernel(), 0.5)


def test_times_of_events_and_of_time_are_not_mixed_up():
    scud = made(UniformKernel(), 0.0)
    masked = Masked(tokens=TokenSpace(size=3, mask=2))
    for process, times in ((scud, UniformTimes()), (scud, GridTimes()), (masked, EventTimes())):
        with pytest.raises(ValueError, match="times events are for"):
            Nelbo(process=process, times=times)
    bound = Nelbo(process=scud, times=EventTimes()).as_bound(1)
    assert bound.times == EventTimes(eps=0.0)
