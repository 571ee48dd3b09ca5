"""RDLM against what is exact: geometry, the moments of its bridge, likelihoods on a circle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import hyp1f1

from ldd_jax.core.draws import example_keys
from ldd_jax.core.types import TokenSpace, as_batch
from ldd_jax.objectives import CrossEntropyTimes, GridTimes, Nelbo, UniformTimes
from ldd_jax.processes import Sphere, bridges, geometry, token_space
from ldd_jax.schedules import Bridge
from tests.lab import jit
from tests.processes import circle

RNG = np.random.default_rng(4)


def points(number, size):
    x = RNG.normal(size=(number, size))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def made(vocabulary, **fields):
    process = Sphere(**fields)
    return Sphere(**fields, tokens=token_space(process, vocabulary))


@pytest.mark.usefixtures("x64")
def test_exp_and_log_are_inverse_and_the_drift_is_tangent():
    x, y, p = points(50, 5), points(50, 5), jnp.asarray(RNG.dirichlet(np.ones(5), 50))
    v = geometry.log_map(x, y)
    np.testing.assert_allclose(geometry.exp_map(x, v), y, atol=1e-14)
    np.testing.assert_allclose(geometry.dot(x, v), 0, atol=1e-14)
    np.testing.assert_allclose(jnp.linalg.norm(v, axis=1), np.arccos(np.sum(x * y, 1)), atol=1e-13)
    drift = geometry.towards_vertices(x, p)
    each = [p[:, k, None] * geometry.log_map(x, jnp.eye(5)[None, k]) for k in range(5)]
    np.testing.assert_allclose(drift, sum(each), atol=1e-13)
    np.testing.assert_allclose(geometry.dot(x, drift), 0, atol=1e-14)


def test_float32_holds_at_the_point_itself_and_opposite_it():
    angle = np.concatenate([np.geomspace(1e-7, 0.2, 40), np.linspace(0.2, np.pi - 2e-3, 40)])
    # The quotient of the cosine that float32 can hold, not of the angle.
    c = np.cos(angle).astype(np.float32)
    exact = np.arccos(c.astype(float)) / np.sqrt(np.maximum(1 - c.astype(float) ** 2, 1e-300))
    np.testing.assert_allclose(geometry.stretch(jnp.asarray(c)), np.where(c == 1, 1, exact), 1e-5)
    for cosine in (1.0, 1.0 + 1e-6, -1.0, -1.0 - 1e-6):
        assert np.isfinite(geometry.stretch(jnp.float32(cosine)))
    vertex = jnp.eye(4, dtype=jnp.float32)
    for x in (vertex, -vertex):
        assert np.isfinite(geometry.log_map(x, vertex)).all()
        moved = geometry.exp_map(x, 1e-20 * geometry.log_map(x, vertex[::-1]))
        np.testing.assert_allclose(moved, x, atol=1e-6)
    np.testing.assert_array_equal(geometry.log_map(vertex, vertex), 0)


@pytest.mark.parametrize("rho, dimension", [(0.6, 3), (0.1, 8), (0.2, 27), (0.4, 200)])
def test_the_mean_cosine_is_a_confluent_series(rho, dimension):
    """1F1 by Kummer's transform, and by drawing; without the factor exp(-rho^2 / 2) of the code."""
    found, y = bridges.mean_cosine(rho, dimension), rho * rho / 2
    series = np.exp(-y) * hyp1f1((1 - dimension) / 2, 0.5, y)
    assert found == pytest.approx(series, abs=1e-9)
    drawn = np.cos(rho * np.sqrt(np.random.default_rng(1).chisquare(dimension, 100_000)))
    assert found == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(len(drawn)))
    if rho * np.sqrt(dimension) < np.pi:
        assert bridges.spread_of(found, dimension) == pytest.approx(rho, rel=1e-6)


def test_the_table_of_a_circle_is_known():
    """mu = pi / 4 tau further along, rho = sqrt(B tau (1 - tau))."""
    total = Bridge().total
    table = bridges.table(total, 1, np.sqrt(0.5))
    np.testing.assert_allclose(table.a, np.sin(np.pi / 4 * table.tau), atol=3e-3)
    np.testing.assert_allclose(table.scale, np.sqrt(total), rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["mask", "uniform"])
def test_states_of_the_table_have_the_moments_of_the_bridge(prior):
    """Its own equation in all coordinates, not the few that the table is made from."""
    process, rows = made(4, prior_point=prior), 2048
    keys = example_keys(jax.random.key(1), jnp.arange(rows))
    z0, keep = jnp.full((rows, 4), 1), jnp.zeros((rows, 4), bool)
    start = np.asarray(process.start())
    whole, quick = (jit(run) for run in (process.corrupt_to_prior, process.corrupt))
    for t in (0.2, 0.6, 0.8):
        t_B = jnp.full(rows, t)
        true, drawn = (np.asarray(run(keys, z0, t_B, keep)[0]) for run in (whole, quick))
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=-1), 1, atol=1e-6)
        for look in (lambda x: x[..., 1], lambda x: x @ start):
            a, b = look(true).ravel(), look(drawn).ravel()
            error = np.sqrt((a.var() + b.var()) / a.size)
            assert abs(a.mean() - b.mean()) < 4.5 * error + 1e-3, (t, a.mean(), b.mean(), error)
            assert a.std() == pytest.approx(b.std(), abs=0.02)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("left", [0.1, 1e-3])
@pytest.mark.parametrize("k, nats", [(0, 0.162519), (1, 1.897120)])
def test_likelihoods_on_a_circle(left, k, nats):
    """The production integrand over time and angle, with what is left at the end."""
    process = circle.circle(left)
    schedule = process.schedule
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    weight = weight / weight.sum()

    def states(tau):
        angle = (
            circle.mean(tau[:, None], k) + np.sqrt(tau * (1 - tau) * schedule.total)[:, None] * node
        )
        z = np.stack([np.cos(angle), np.sin(angle)], -1)
        logits = circle.logits(process, jnp.asarray(angle), jnp.asarray(tau)[:, None] + 0 * angle)
        clock = np.log1p(tau / (1 - left) * (schedule.end / schedule.begin - 1))
        t = 1 - clock / np.log(schedule.end / schedule.begin)
        rows = lambda a: jnp.asarray(np.asarray(a).reshape(-1, *np.shape(a)[2:]))
        return rows(logits), rows(z), rows(t[:, None] + 0 * angle), t

    ends = [e for e in (0, 0.003, 0.03, 0.1, 0.3, 1, 3, 10, 100) if e < (1 - left) / left]
    ends.append((1 - left) / left)  # of tau / (1 - tau)
    unit, legendre = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for low, high in zip(ends[:-1], ends[1:]):
        s = low + (unit + 1) / 2 * (high - low)
        tau = s / (1 + s)
        logits, z, t_N, t = states(tau)
        token = jnp.full(len(z), k)
        inner = process.bound(logits, token, z, t_N).reshape(len(s), -1) @ weight
        speed = (1 - tau) ** 2 / -np.asarray(schedule.d_alpha(jnp.asarray(t)))
        total += (high - low) / 2 * np.sum(legendre * inner * speed)
    logits, z, t_N, _ = states(np.array([1 - left]))
    pred = process.read(logits, z, t_N)
    total -= float(weight @ process.log_recovery(pred, jnp.full(len(z), k), z, t_N))
    assert total == pytest.approx(nats, abs=1.5e-6)


@pytest.mark.parametrize("k, nats", [(0, 0.162519), (1, 1.897120)])
def test_the_estimate_of_an_ideal_network_is_the_likelihood(k, nats):
    """Times, simulated states and the last term of the objective together."""
    process, rows = circle.circle(), 4096
    objective = Nelbo(process=process, times=CrossEntropyTimes(), num_classes=0).as_bound(1)
    arrays = dict(
        z0=jnp.full((rows, 4), k),
        keep=jnp.zeros((rows, 4), bool),
        weight=jnp.ones((rows, 4)),
        index=jnp.arange(rows),
    )
    denoiser = circle.Ideal(process)
    run = jit(lambda key: objective(denoiser, as_batch(arrays), key).metrics["loss_B"] / 4)
    found = np.asarray(run(jax.random.key(2)))
    error = found.std() / np.sqrt(rows)  # an upper bound of it: the times are stratified
    assert error < 0.12 * nats and abs(found.mean() - nats) < 3 * error, (found.mean(), error)


def test_kept_positions_are_vertices_and_have_their_tokens():
    process = made(7)
    keys, z0 = example_keys(jax.random.key(1), jnp.arange(3)), jnp.asarray([[1, 6, 0, 3]] * 3)
    keep = jnp.asarray([[True, False, True, False]] * 3)
    for corrupt in (process.corrupt, jit(process.corrupt_to_prior)):
        z, clock = corrupt(keys, z0, jnp.asarray([0.3, 0.9, 1.0]), keep)
        np.testing.assert_array_equal(z[:, ::2], process.encode(z0)[:, ::2])
        np.testing.assert_allclose(z[2, 1::2], np.eye(8)[[7, 7]], atol=1e-6)
        np.testing.assert_allclose(clock, [0.3, 0.9, 1.0])


@pytest.mark.parametrize("prior", ["mask", "uniform"])
@pytest.mark.parametrize(
    "base, vocabulary, digits", [(2, 11, 4), (3, 27, 3), (3, 28, 4), (5, 4, 1)]
)
def test_digits_write_every_token_and_nothing_else(prior, base, vocabulary, digits):
    process = made(vocabulary, prior_point=prior, base=base)
    assert process.tokens.digits == digits
    assert process.tokens.size == base + (prior == "mask")
    ids = jnp.arange(vocabulary)[None]
    np.testing.assert_array_equal(process.decode(process.encode(ids)), ids)
    anywhere = points(4000, digits * process.tokens.size).reshape(1, 4000, digits, -1)
    anywhere = anywhere if digits > 1 else anywhere[:, :, 0]
    found = np.asarray(process.decode(anywhere))
    assert sorted(set(found.ravel())) == list(range(vocabulary))
    assert np.isnan(process.encode(jnp.full((1, 1), -1))).all()


@pytest.mark.slow
def test_the_terms_of_digits_add_up():
    """A token's bound and recovery are the sums over spheres of their own."""
    process, single = made(9, base=3), made(3)
    rng, rows = np.random.default_rng(3), 20
    z = points(2 * rows, 4).reshape(rows, 2, 4)
    logits = jnp.asarray(rng.normal(size=(rows, 2, 4)))
    ids, t = jnp.asarray(rng.integers(0, 9, rows)), jnp.full(rows, 0.6)
    parts = [ids // 3, ids % 3]
    bound = sum(single.bound(logits[:, i], parts[i], z[:, i], t) for i in (0, 1))
    np.testing.assert_allclose(process.bound(logits, ids, z, t), bound, rtol=1e-5)
    pred = process.read(logits, z, t)
    log = sum(single.log_recovery(pred[:, i], parts[i], z[:, i], t) for i in (0, 1))
    np.testing.assert_allclose(process.log_recovery(pred, ids, z, t), log, rtol=1e-5)


@pytest.mark.parametrize(
    "fields, why",
    [
        (dict(prior_point="mixture"), "no single process"),
        (dict(base=1), "at least 2"),
    ],
)
def test_wrong_fields_are_refused(fields, why):
    with pytest.raises(ValueError, match=why):
        Sphere(**fields)


def test_times_of_a_chain_are_refused():
    process = Sphere(tokens=TokenSpace(size=5, mask=4))
    with pytest.raises(ValueError, match="are points"):
        Nelbo(process=process, times=GridTimes(), num_classes=0)
    Nelbo(process=process, times=UniformTimes(), num_classes=0)


def test_dense_times_keep_their_share():
    u = (jnp.arange(10_000) + 0.5) / 10_000
    t, factor = CrossEntropyTimes(begin=0.3, end=0.8, share=0.7)(u, None)
    inside = np.mean((t >= 0.3) & (t <= 0.8))
    assert inside == pytest.approx(0.7 + 0.3 * 0.5, abs=1e-3)
    assert (t > 0).all() and (t <= 1).all() and (factor == 1).all()
