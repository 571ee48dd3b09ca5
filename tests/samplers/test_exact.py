"""Every rule against the exact law of its production code: draws, orders, invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldd_jax.core.draws import Production
from ldd_jax.oracle import report
from ldd_jax.oracle.lab import Enumeration, at_rest, final_laws
from ldd_jax.oracle.laws import Exact, Law, index, kl
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Confidence,
    EntropyBounded,
    FirstHitting,
    GibbsCorrector,
    LinearGrid,
    PredictorCorrector,
    Psi,
    RateCorrector,
    ReMDM,
    Renoise,
    TauLeaping,
    ThetaRK2,
    ThetaTrapezoidal,
)
from ldd_jax.samplers.leaps import LEAPS, chance
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.orders import Candidates
from ldd_jax.samplers.stops import choose
from ldd_jax.schedules import LinearSigma, LogLinear
from tests.lab import jit
from tests.samplers.rules import RULES, runs

pytestmark = pytest.mark.usefixtures("x64")


def toy(kind, *, seed=3, vocabulary=2, length=3, concentration=30.0):
    law = Law(seed, vocabulary, length, concentration, masked=kind == "masked")
    if kind == "masked":
        return law, Masked(schedule=LogLinear(eps=0.0), tokens=law.tokens)
    return law, Uniform(schedule=LinearSigma(sigma_max=4.0), tokens=law.tokens)


# Variants of a rule run in the whole set only.
VARIANT = pytest.mark.slow
PAIRS = [
    pytest.param(rule, kind, id=f"{rule}-{kind}")
    for rule, step in RULES.items()
    for kind in ("masked", "uniform")
    if runs(step, toy(kind)[1], latent=False, timed=kind == "uniform")
    and getattr(step, "corrections", 1) == 1  # a loop: the same body more often
    and rule != "skipping"  # its step depends on the whole grid: test_skipping.py
]


def matrix_of(step, law, process, t, s):
    """Exact transition matrix of the production step."""
    every = Enumeration(Net(Exact.of(law), process), step, law)
    return np.asarray(jit(lambda table: every.matrix(table, t, s))(every.table()))


@pytest.mark.parametrize("rule, kind", PAIRS)
def test_draws_follow_the_exact_matrix(rule, kind):
    """Chi-square of production draws from a mixed state against the sum over dictated outcomes."""
    law, process = toy(kind, vocabulary=2, length=2 if "corrector" in rule else 3, concentration=1)
    step, net = RULES[rule], Net(Exact.of(law), process)
    draws, times = 20_000, (None, None) if step.clock == "own" else (0.65, 0.4)
    matrix = matrix_of(step, law, process, *times)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-9)
    origin = len(law.z) - (1 if "corrector" in rule else 3)  # masked: mask mask token; all masks
    spread = lambda a: jnp.full(draws, a)

    @jit
    def run(draw):
        state = at_rest(net, step, jnp.tile(jnp.asarray(law.z[origin]), (draws, 1)))
        if step.clock == "own":
            return step(net, state, None, draw, None).z
        return step(net, state._replace(clock=spread(times[0])), spread(times[1]), draw, None).z

    out = np.asarray(run(Production.of(jax.random.key(4), jnp.arange(draws))))
    count = np.bincount(index(out, law.size), minlength=len(law.z))
    expected = matrix[origin] * draws
    assert count[expected < 1e-9].sum() == 0
    on = expected > 1e-9
    if rule == "easy_first revise":  # nothing in it is drawn
        assert on.sum() == 1
        return
    chi = ((count - expected)[on] ** 2 / expected[on]).sum()
    assert on.sum() > 1
    assert stats.chi2.sf(chi, on.sum() - 1) > 1e-4, (count[on], expected[on])


def slopes(kind, step, steps, look=lambda law, p: p):
    law, process = toy(kind)
    net, grid = Net(Exact.of(law), process), LinearGrid(end=0.02)
    alpha = lambda t: float(process.schedule.alpha(jnp.asarray(t)))
    laws = final_laws(net, step, law, grid, law.marginal(alpha(1.0)))
    target = look(law, law.marginal(alpha(0.02)))
    gaps = [kl(target, look(law, laws(n))) for n in steps]
    return np.log2(np.array(gaps[:-1]) / gaps[1:])


@pytest.mark.parametrize(
    "kind, step, steps, order",
    [
        ("masked", Ancestral(), (64, 128), 2),
        ("masked", TauLeaping(), (64, 128), 2),
        ("masked", ThetaTrapezoidal(), (64, 128), 4),
        ("masked", ThetaTrapezoidal(leap="linear"), (128, 256), 2),
        ("masked", ThetaRK2(leap="first_jump"), (64, 128), 2),
        ("masked", ThetaRK2(theta=0.7), (64, 128), 4),  # so far; 2 in the end: see below
        ("uniform", TauLeaping(), (64, 128), 2),
        ("uniform", ThetaTrapezoidal(), (64, 128), 4),
    ],
    ids=str,
)
def test_orders(kind, step, steps, order):
    assert abs(slopes(kind, step, steps)[-1] - order) < 0.25


@pytest.mark.slow
def test_rk2_is_of_order_four_in_one_position_and_two_in_pairs():
    """Restarted from z, two positions revealed in one step never saw each other.

    One position's law has order 4. The joint law passes through slopes near 4 while that error
    leads, and ends at 2, the order of a pair revealed at once (as in ancestral sampling).
    """
    one = lambda law, p: np.bincount(law.z[:, 0], p, law.size)
    assert abs(slopes("masked", ThetaRK2(), (64, 128, 256), one)[-1] - 4) < 0.25
    joint = slopes("masked", ThetaRK2(), (64, 128, 512, 1024))
    assert 3.4 < joint[0] < 4.25 and joint[-1] < 2.5, joint


def test_one_ancestral_step_misses_the_total_correlation():
    law, process = toy("masked", concentration=0.5)
    out = matrix_of(Ancestral(), law, process, 1.0, 0.0)[-1]
    clean = (law.z != law.tokens.mask).all(1)
    assert abs(kl(law.p, out[clean]) - law.total_correlation()) < 1e-12
    assert abs(law.total_correlation() - 0.4430) < 5e-5  # Dirichlet(0.5), seed 3


@pytest.mark.parametrize(
    "step",
    [FirstHitting(), Confidence(order="random"), Confidence(), EntropyBounded(gamma=0.0)],
    ids=str,
)
def test_one_position_a_call_is_exact(step):
    law, process = toy("masked", concentration=0.5)
    laws = final_laws(Net(Exact.of(law), process), step, law, None, law.marginal(0.0))
    assert abs(kl(law.marginal(1.0), laws(law.length))) < 1e-13


def test_two_at_once_and_tokens_that_choose_their_place_are_not():
    law, process = toy("masked")
    gap = {}
    for name, step in {
        "two": Confidence(count=2),
        "wide": EntropyBounded(gamma=0.7),
        "sampled": Confidence(order="sampled"),
    }.items():
        laws = final_laws(Net(Exact.of(law), process), step, law, None, law.marginal(0.0))
        gap[name] = kl(law.marginal(1.0), laws(3))
    assert gap["two"] > 1e-5 and gap["wide"] > 1e-5 and gap["sampled"] > 0.1


@pytest.mark.parametrize(
    "step, kept",
    [
        (Renoise(), lambda h, most: most),
        (Renoise(gamma=0.6), lambda h, most: max(most, within(h, 0.6))),
        (Renoise(gamma=0.6, scheduled=False), lambda h, most: within(h, 0.6)),
    ],
    ids=["planned", "planned and sure", "sure"],
)
def test_the_planner_keeps_the_surest_and_puts_noise_elsewhere(step, kept):
    """Every entry of its matrix from the exact conditionals, in NumPy."""
    law, process = toy("uniform", concentration=1.0)
    alpha_t, alpha_s = (float(process.schedule.alpha(jnp.asarray(a))) for a in (0.5, 0.15))
    known = law.conditionals(alpha_t, leave_one_out=False)
    entropy = -(known * np.log(known)).sum(-1)
    most = law.length - int(np.floor(law.length * (1 - alpha_s)))
    expected = np.ones((len(law.z), len(law.z)))
    for a, (own, h) in enumerate(zip(known, entropy)):
        order = np.argsort(h, kind="stable")
        stays = set(order[: kept(h[order], most)])
        for place in range(law.length):
            each = own[place] if place in stays else np.full(law.size, 1 / law.size)
            expected[a] *= each[law.z[:, place]]
    found = matrix_of(step, law, process, 0.5, 0.15)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def within(h, gamma):
    """The longest prefix of rising entropies whose sum less the largest is at most gamma."""
    return max(n for n in range(1, len(h) + 1) if h[:n].sum() - h[n - 1] <= gamma)


def test_a_factor_takes_as_many_as_its_bound_allows():
    """(n + 1) (1 - c_n) < factor, by counting; n is at least 1."""
    top = np.array([[0.9, 0.5, 0.97, 0.8, 0.99], [0.2, 0.1, 0.3, 0.1, 0.2]])
    wanted = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]) > 0
    for factor in (0.05, 0.3, 0.5, 0.9, 3.0):
        found = Candidates(None, -jnp.asarray(top), None, jnp.asarray(top))
        chosen = Confidence(factor=factor)._chosen(found, jnp.asarray(wanted), None) & wanted
        for row, own, got in zip(top, wanted, np.asarray(chosen)):
            best = np.sort(row[own])[::-1]
            fits = [n for n in range(1, len(best) + 1) if (n + 1) * (1 - best[n - 1]) < factor]
            assert got.sum() == max([1, *fits]) and row[got].min() >= best[got.sum() - 1]


@pytest.mark.parametrize("strength", ["cap", "rescale", "forward_backward"])
def test_remdm_keeps_the_marginals(strength):
    """With one position the kernel is exact: p_t times the matrix is p_s."""
    law, process = toy("masked", vocabulary=3, length=1, concentration=1.0)
    step = ReMDM(strength=strength, eta=0.3)
    for t, s in ((0.9, 0.6), (0.5, 0.45)):
        p_t, p_s = (law.marginal(1 - a) for a in (t, s))
        matrix = matrix_of(step, law, process, t, s)
        np.testing.assert_allclose(p_t @ matrix, p_s, rtol=0, atol=1e-14)
        assert matrix[0, 0] < 1  # something is remasked


@pytest.mark.parametrize("kind", ["masked", "uniform"])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_psi_keeps_the_marginals(kind, kappa):
    """With one position each part of the mixture takes p_t to p_s."""
    law, process = toy(kind, vocabulary=3, length=1, concentration=1.0)
    for t, s in ((0.9, 0.6), (0.5, 0.45)):
        p_t, p_s = (law.marginal(float(process.schedule.alpha(jnp.asarray(a)))) for a in (t, s))
        matrix = matrix_of(Psi(kappa=kappa), law, process, t, s)
        np.testing.assert_allclose(p_t @ matrix, p_s, rtol=0, atol=1e-13)
        plain = matrix_of(Ancestral(), law, process, t, s)
        assert np.allclose(matrix, plain, atol=1e-12) == (kappa == 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_gibbs_is_stationary_with_one_position_only(kind):
    law, process = toy(kind, concentration=1.0)
    p = law.marginal(float(process.schedule.alpha(jnp.asarray(0.4))))
    gap = {}
    for positions in (1, 2):
        step = PredictorCorrector(corrector=GibbsCorrector(positions=positions))
        # A predictor of no length leaves z alone; what remains is the corrector.
        matrix = matrix_of(step, law, process, 0.4, 0.4)
        gap[positions] = np.abs(p @ matrix - p).max()
        assert np.abs(matrix - np.eye(len(p))).max() > 0.1
    assert gap[1] < 1e-12 and gap[2] > 1e-4


@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_corrector_rates_are_stationary(kind):
    """p_s (R + Q) = 0: the leap's error in p_s is of second order in its length."""
    law, process = toy(kind, concentration=1.0)
    p = law.marginal(float(process.schedule.alpha(jnp.asarray(0.4))))
    gaps = []
    for size in (1e-3, 5e-4):

        class Only(Ancestral):
            """The corrector alone."""

            def __call__(self, net, state, s, draw, segment, size=size):
                rate = RateCorrector(size=size, share=1.0)
                return rate(net, state._replace(clock=s), jnp.ones_like(s), draw, segment)

        gaps.append(np.abs(p @ matrix_of(Only(), law, process, 0.5, 0.4) - p).max())
    assert gaps[0] < 2e-5 and abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.1, gaps


@pytest.mark.parametrize("kind", ["masked", "uniform"])
@pytest.mark.parametrize("s", [1e-5, 1e-3, 0.02])
def test_a_correction_near_the_end_leaves_the_text_alone(kind, s):
    """However long the step was: a leap of t - s would change a share t - s of the text."""
    law, process = toy(kind, length=1, vocabulary=3, concentration=1.0)
    p = law.marginal(float(process.schedule.alpha(jnp.asarray(s))))
    corrector = PredictorCorrector(corrector=RateCorrector())

    class Only(Ancestral):
        """The corrector alone, after a step from t = 1/16."""

        def __call__(self, net, state, s, draw, segment):
            t = state.clock
            return corrector.corrector(net, state._replace(clock=s), t - s, draw, segment)

    matrix = matrix_of(Only(), law, process, 1 / 16, s)
    moved = 1 - np.diag(matrix)[: law.size - (kind == "masked")]
    noise = float(process.schedule.noise(jnp.asarray(s)))
    assert (moved > 0).all() and moved.max() < 0.3 * noise / min(law.p)
    after = p @ matrix
    assert kl(p, after) < 0.01 * noise
    if kind == "masked":
        np.testing.assert_allclose(after, p, rtol=0, atol=1e-14)


@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("s", [1e-5, 0.02, 0.4])
def test_a_correction_of_any_length_keeps_the_law_of_one_masked_position(leap, s):
    law, process = toy("masked", length=1, vocabulary=3, concentration=1.0)
    p = law.marginal(1 - s)
    corrector = RateCorrector(leap=leap, size=50.0, share=1.0)

    class Only(Ancestral):
        """The corrector alone."""

        def __call__(self, net, state, s, draw, segment):
            return corrector(net, state._replace(clock=s), state.clock - s, draw, segment)

    matrix = matrix_of(Only(), law, process, 0.5, s)
    np.testing.assert_allclose(p @ matrix, p, rtol=0, atol=1e-14)
    assert matrix[-1, -1] < 0.99 and matrix[0, -1] > 0.01 * s


@pytest.mark.parametrize("leap", LEAPS)
def test_leaps_agree_to_first_order_and_are_laws(leap):
    total = jnp.asarray([0.0, 1e-4, 0.3, 1.0, 5.0, jnp.inf])
    p = chance(leap, total)
    assert (p >= 0).all() and (p <= 1).all() and p[-1] == 1 and p[0] == 0
    assert abs(p[1] / total[1] - 1) < 2e-4


def test_finished_rows_are_left_alone():
    keep = jnp.asarray([True, False])
    old, new = (jnp.zeros((2, 3)), jnp.zeros(2)), (jnp.ones((2, 3)), jnp.ones(2))
    a, b = choose(keep, old, new)
    assert a.tolist() == [[0, 0, 0], [1, 1, 1]] and b.tolist() == [0, 1]


def test_lab_lists_every_rule_and_says_what_it_skips():
    from ldd_jax.core.registry import names

    listed = {case.step.registered[1] for case in report.CASES}
    # Autoregressive sampling has no discretisation to measure, easy_first takes the most probable
    # token and has no law to come near; events walks over counts beside the tokens
    # (test_events.py); geodesic moves points (test_geodesic.py); skipping has
    # ancestral's law by times that are not enumerable (test_skipping.py), joint_flow has figures of
    # its own (test_joint_flow.py), as have rules of patches; the last is an example of the docs.
    apart = {
        "patch_ancestral",
        "patch_clock",
        "next_token",
        "easy_first",
        "events",
        "skipping",
        "geodesic",
        "joint_flow",
        "arg_max_all",
    }
    assert listed == set(names("step")) - apart
