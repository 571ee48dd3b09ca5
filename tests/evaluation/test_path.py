"""The path objective and its grids on a law of three letters in three places, exactly."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.evaluation.path import MaskLosses, best_levels, by_counts, path_nats
from ldd_jax.objectives.times import GridTimes
from ldd_jax.oracle.lab import Enumeration, final_laws
from ldd_jax.oracle.laws import Exact
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, LinearGrid, TableGrid
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.trajectory import along
from ldd_jax.schedules import LogLinear
from tests.lab import Law, index, jit, kl, live_params

LINEAR = {m: 1 - np.arange(m + 1) / m for m in (2, 4, 8)}


def exact_losses(law):
    """E(n) by enumeration."""
    known, found = law.conditionals(0.5, leave_one_out=False), []
    for n in range(1, law.length + 1):
        nats = []
        for hidden in itertools.combinations(range(law.length), n):
            z = law.x.copy()
            z[:, hidden] = law.vocabulary
            p = known[index(z, law.size)][:, hidden, :]
            p = np.take_along_axis(p, law.x[:, hidden, None], 2)
            nats.append(-(law.p @ np.log(p[..., 0])).mean())
        found.append(np.mean(nats))
    return MaskLosses(np.array(found), np.ones(law.length))


def entropy(law):
    return -float(law.p @ np.log(law.p))


def masked(law):
    return Masked(tokens=law.tokens, schedule=LogLinear(eps=0.0))


@pytest.fixture(scope="module")
def law():
    return Law(3, 3, 3, 0.5)


@pytest.fixture(scope="module")
def losses(law):
    return exact_losses(law)


def test_losses_of_exact_conditionals_sum_to_the_entropy(law, losses):
    assert abs(losses.total - entropy(law)) < 1e-14
    assert (np.diff(losses.values) > 0).all()
    np.testing.assert_array_equal(losses.rising().values, losses.values)


# concentration, steps -> path KL of equal steps, of the learned grid, exact KL of the latter
FIGURES = {
    (0.5, 4): (0.10127, 0.10015, 0.04293),
    (0.5, 8): (0.05140, 0.05083, 0.01551),
    (5.0, 4): (0.02540, 0.02500, 0.00820),
}


@pytest.mark.parametrize("concentration, steps", FIGURES)
def test_learned_grids(concentration, steps, x64):
    law = Law(3, 3, 3, concentration)
    found, h = exact_losses(law), entropy(law)
    best = best_levels(found, [LINEAR[steps]])
    grid = TableGrid(times=tuple(best.tolist()))
    start = law.marginal(0.0)
    sampled = final_laws(Net(Exact.of(law), masked(law)), Ancestral(), law, grid, start)(steps)
    paths = [path_nats(found, u)[0] - h for u in (LINEAR[steps], best)]
    ours = [*paths, kl(law.marginal(1.0), sampled)]
    np.testing.assert_allclose(ours, FIGURES[concentration, steps], atol=5e-6)
    assert ours[2] < ours[1]  # the law of samples is nearer than that of paths


def test_the_learned_grid_is_near_the_best_of_all(law, losses, x64):
    """Exact KL .04407 of equal steps, .04289 at best, at factors 1.21, 1.10, 1.04 of the rate."""
    every = Enumeration(Net(Exact.of(law), masked(law)), Ancestral(), law)
    table, start = every.table(), law.marginal(0.0)
    target = law.marginal(1.0)

    @jit
    def run(table, u):
        def advance(p, ends):
            return p @ every.matrix(table, *ends), None

        return jax.lax.scan(advance, jnp.asarray(start), (u[:-1], u[1:]))[0]

    def levels(factors):
        rho = np.append(np.asarray(factors) / [4, 3, 2], 1)
        return np.concatenate([[1], np.cumprod(1 - rho)])

    exact = lambda factors: kl(target, np.asarray(run(table, jnp.asarray(levels(factors)))))
    best = minimize(exact, np.ones(3), method="Nelder-Mead", options=dict(xatol=1e-3, fatol=1e-8))
    assert abs(exact(np.ones(3)) - 0.04407) < 5e-6 and abs(best.fun - 0.04289) < 5e-6
    np.testing.assert_allclose(best.x, [1.21, 1.10, 1.04], atol=0.01)
    learned = best_levels(losses, [LINEAR[4]])
    factors = (1 - learned[1:4] / learned[:3]) * [4, 3, 2]
    assert 0 < exact(factors) - best.fun < 5e-5


def test_gradient(losses):
    u, tiny = np.array([1.0, 0.8, 0.35, 0.2, 0.05]), 1e-6
    gradient = path_nats(losses, u)[1]
    for k in range(1, 4):
        nats = [path_nats(losses, u + s * tiny * (np.arange(5) == k))[0] for s in (1, -1)]
        assert abs(gradient[k] - (nats[0] - nats[1]) / (2 * tiny)) < 1e-8
    assert gradient[0] == gradient[-1] == 0


def test_no_start_is_better_than_another(losses):
    """J has one valley here. What is left at the end is paid for by the removal."""
    end = 0.1
    starts = [end + (1 - end) * LINEAR[4] ** power for power in (0.5, 1, 3)]
    found = [best_levels(losses, [s]) for s in starts]
    for u in found[1:]:
        np.testing.assert_allclose(u, found[0], atol=1e-6)
    assert found[0][0] == 1 and found[0][-1] == end
    five = best_levels(losses, [np.append(starts[1], 0.0)])
    assert path_nats(losses, five)[0] < path_nats(losses, found[0])[0]


def test_best_counts_against_all(losses):
    e = MaskLosses(np.array([0.1, 0.7, 0.8, 0.85, 2.0, 2.1]), np.ones(6))

    def nats(path):
        return sum((a - b) * e.values[a - 1] for a, b in itertools.pairwise(path) if a > 0)

    for steps in (1, 2, 3, 6, 8):
        middle = itertools.combinations_with_replacement(range(6, -1, -1), steps - 1)
        least = min(nats((6, *path, 0)) for path in middle)
        counts, cost = by_counts(e, steps)
        assert counts[0] == 6 and counts[-1] == 0 and len(counts) == steps + 1
        assert abs(cost - least) < 1e-12 and abs(nats(counts) - least) < 1e-12
    assert abs(by_counts(losses, 3)[1] - losses.total) < 1e-12  # one at a time


def test_measured_losses_with_gaps():
    found = MaskLosses.of([3, 3, 1, 0, 1], [1.0, 3.0, 0.5, 9.0, 0.7], 4, [1, 3, 1, 5, 1])
    np.testing.assert_allclose(found.values, [0.6, np.nan, 2.5, np.nan])
    np.testing.assert_array_equal(found.counts, [2, 0, 4, 0])
    np.testing.assert_allclose(found.rising().values, [0.6, 1.55, 2.5, 2.5])
    fell = MaskLosses(np.array([1.0, 3.0, 2.0]), np.array([1.0, 1.0, 3.0]))
    np.testing.assert_allclose(fell.rising().values, [1, 2.25, 2.25])


def test_equals_the_bound_of_a_chain(law, losses, x64):
    """J of equal steps is the mean over data of the bound with `times` grid."""
    steps, process = 4, masked(law)
    times, known = GridTimes(steps=steps), law.conditionals(0.5, leave_one_out=False)
    total = 0.0
    z = np.repeat(law.z, len(law.x), 0)
    x = np.tile(law.x, (len(law.z), 1))
    logits = np.maximum(np.log(np.maximum(np.repeat(known, len(law.x), 0), 1e-300)), -1e4)
    flat = lambda a: jnp.asarray(a.reshape(-1, *a.shape[2:]))
    for k in range(1, steps + 1):
        t = jnp.full(z.size, k / steps)
        rows = times.integrand(process, flat(logits), flat(x), flat(z), t)
        weight = (law.forward(1 - k / steps) * law.p).reshape(-1)
        possible = weight > 0
        total += weight[possible] @ np.asarray(rows).reshape(z.shape).sum(1)[possible] / steps
    assert abs(total - path_nats(losses, LINEAR[steps])[0]) < 1e-12


def every_path(u, length):
    """Uniforms [C, L] that stand for all ways through the calls of a grid, and their chances."""
    ends = np.append(u, 0.0)
    ways = list(
        itertools.product([k for k in range(len(u)) if ends[k] > ends[k + 1]], repeat=length)
    )
    middle, width = (ends[:-1] + ends[1:]) / 2, ends[:-1] - ends[1:]
    return middle[np.array(ways)], width[np.array(ways)].prod(1), np.array(ways)


@pytest.mark.parametrize("u", [(1, 0.4, 0.0), (1, 0.7, 0.2)], ids=["to the end", "with a removal"])
def test_paths_of_the_exact_denoiser(law, losses, u, x64):
    """E_K l = J, E_K exp(-l) is the sampler's law, and the measured e(n) is the exact one."""
    u = np.array(u)
    v, chance, _ = every_path(u, 3)
    x = np.repeat(law.x, len(v), 0)
    t = jnp.asarray(np.broadcast_to(u[u > 0][:, None], (np.sum(u > 0), len(x))))
    net = Net(Exact.of(law), masked(law))
    found = along(net, jnp.asarray(x), jnp.asarray(np.tile(v, (27, 1))), t, every=True)
    weight = np.outer(law.p, chance)
    nats = np.asarray(found.nats).reshape(27, -1)
    assert abs((weight * nats).sum() - path_nats(losses, u)[0]) < 1e-12
    p = np.exp(-nats) @ chance
    start = law.marginal(0.0)
    laws = final_laws(net, Ancestral(), law, TableGrid(times=(*u.tolist(), 0.0)), start)(len(u))
    np.testing.assert_allclose(p, laws[index(law.x, law.size)], atol=1e-12)
    measured = MaskLosses.of(found.masked, found.loss, 3, np.tile(weight.ravel(), len(t)))
    np.testing.assert_allclose(measured.values, losses.values, atol=1e-12)


@pytest.mark.slow
def test_paths_carry_the_latent():
    """Against the network called by hand, call after call."""
    tokens, length, u = TokenSpace(size=4, mask=3), 2, np.array([1, 0.6, 0.2])
    model = DiT(tokens=tokens, width=8, depth=1, heads=2, cond_width=4, latent=True)
    denoiser = model.bind(live_params(model))
    process = Masked(tokens=tokens, schedule=LogLinear(eps=0.0))
    v, chance, ways = every_path(u, length)
    x = np.array([[0, 2]] * len(v))
    t = jnp.asarray(np.repeat(u[:, None], len(v), 1), jnp.float32)
    net = Net(denoiser, process)
    run = lambda **how: jax.jit(lambda: along(net, jnp.asarray(x), jnp.asarray(v), t, **how))()
    call = jax.jit(denoiser.trunk)
    by_hand = {}
    for carried in (True, False):
        h, nats = denoiser.latent(len(v), length), np.zeros(len(v))
        for k in range(3):
            z = jnp.where(ways >= k, 3, x)
            trunk = call(z, Cond(clock=process.conditioning(t[k])), h)
            logits = denoiser.head(trunk.features.reshape(-1, 8))[:, :3]
            logp = np.asarray(jax.nn.log_softmax(logits)).reshape(len(v), length, 3)
            nats -= np.where(ways == k, np.take_along_axis(logp, x[..., None], 2)[..., 0], 0).sum(1)
            h = trunk.latent if carried else h
        by_hand[carried] = nats
    np.testing.assert_allclose(run().nats, by_hand[True], rtol=1e-5)
    np.testing.assert_allclose(run(latent=Latent(reset_every=1)).nats, by_hand[False], rtol=1e-5)
    assert np.abs(by_hand[True] - by_hand[False]).max() > 1e-3
    np.testing.assert_allclose(run(every=True).nats, by_hand[True], rtol=1e-5)
    fixed = jnp.asarray(np.array([[True, False]] * len(v)))
    kept = run(fixed=fixed, every=True)
    assert int(kept.masked.max()) == 1 and (np.asarray(kept.nats) < by_hand[True]).all()


def test_a_table_of_equal_steps_is_the_linear_grid():
    linear, i = LinearGrid(), jnp.arange(9.0)
    table = TableGrid(times=tuple(float(linear(k, 8)) for k in i))
    np.testing.assert_array_equal(table(i, 8), linear(i, 8))
    np.testing.assert_allclose(TableGrid()(i, 8), linear(i, 8), atol=1e-7)
    np.testing.assert_allclose(table(jnp.arange(17.0), 16), linear(jnp.arange(17.0), 16), atol=1e-7)


@pytest.mark.parametrize(
    "times, words",
    [
        ((1.0,), "2 to"),
        ((0.9, 0.1), "from 0.9"),
        ((1.0, 0.5, -0.1), "to -0.1"),
        ((1.0, 0.2, 0.3, 0.0), "rise to 0.3"),
        ((1.0, float("nan"), 0.0), "from 1"),
    ],
)
def test_tables_that_are_no_grid(times, words):
    with pytest.raises(ValueError, match=words):
        TableGrid(times=times)
