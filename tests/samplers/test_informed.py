"""Informed corrections by their exact kernels: which keep the law, and how far off others are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.draws import Production
from ldd_jax.oracle.lab import Enumeration
from ldd_jax.oracle.laws import Exact, Law
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Ancestral, InformedCorrector, PredictorCorrector, sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import Clamp
from ldd_jax.schedules import LogLinear
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, Toy

LAW = Law(3, 3, 3, 0.5)
LAW.p = (LAW.p + 1e-3) / (1 + 1e-3 * len(LAW.p))  # no text is next to impossible
PROCESS = Masked(tokens=LAW.tokens, schedule=LogLinear(eps=0.0))
RANDOM = dict(choose="random")
MARGIN = dict(score="margin")
# Rule -> TV(PT, P) and TV(stationary law, P) to the digits given, the same by a plain enumeration
# of the rules in numpy.
KERNELS = {
    "random": (RANDOM, 0, 0),
    "entropy": (dict(choose="entropy"), 0, 0),
    "log_prob .1": (dict(temperature=0.1), 0.198, 0.637),
    "log_prob 1": (dict(), 0.056, 0.128),
    "log_prob 10": (dict(temperature=10.0), 0.0056, 0.014),
    "margin .1": (dict(temperature=0.1) | MARGIN, 0.193, 0.468),
    "margin 1": (MARGIN, 0.092, 0.182),
    "margin 10": (dict(temperature=10.0) | MARGIN, 0.012, 0.025),
    "two at once": (RANDOM | dict(positions=2), 0.117, 0.161),
}


def kernel(corrector, process, law, s):
    """[from, to] of one correction at time s."""

    class Only(Ancestral):
        """The corrector alone."""

        def __call__(self, net, state, s, draw, segment):
            return corrector(net, state._replace(clock=s), state.clock - s, draw, segment)

    every = Enumeration(Net(Exact.of(law), process), Only(), law)
    return np.asarray(jit(lambda table: every.matrix(table, 0.5, s))(every.table()))


def resting(matrix):
    """The law q with q T = q, sum q = 1."""
    n = len(matrix)
    system = np.concatenate([matrix.T - np.eye(n), np.ones((1, n))])
    return np.linalg.lstsq(system, np.eye(n + 1)[-1], rcond=None)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_on_finished_text(name):
    given, moved, rests = KERNELS[name]
    p = LAW.marginal(1.0)
    matrix = kernel(InformedCorrector(**given), PROCESS, LAW, 0.0)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-9)
    tv = lambda q: 0.5 * np.abs(q - p).sum()
    on = p > 0  # finished texts, which none of them leaves
    stationary = np.zeros(len(p))
    stationary[on] = resting(matrix[np.ix_(on, on)])
    for found, stated in ((tv(p @ matrix), moved), (tv(stationary), rests)):
        if stated == 0:
            assert found < 1e-12
        else:
            digits = len(str(stated)) - 2
            assert abs(found - stated) < 0.6 * 10.0**-digits, (found, stated)


@pytest.mark.usefixtures("x64")
def test_what_is_accepted_keeps_a_short_text():
    """Choices by the score there and back: all texts of three positions, the whole chain."""
    law = Law(5, 2, 3, 0.5)
    process = Masked(tokens=law.tokens, schedule=LogLinear(eps=0.0))
    p = law.marginal(1.0)
    moved = p @ kernel(InformedCorrector(accept=True, temperature=0.5), process, law, 0.0)
    other = p @ kernel(InformedCorrector(temperature=0.5), process, law, 0.0)
    np.testing.assert_allclose(moved, p, atol=1e-12)
    assert np.abs(other - p).max() > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("choose", ["random", "entropy"])
def test_the_law_in_between_stays_too(choose):
    """At a time with masks, and for uniform noise with its leave-one-out predictions."""
    for law, process in ((LAW, PROCESS), uniform()):
        alpha = float(process.schedule.alpha(jnp.asarray(0.4)))
        p = law.marginal(alpha)
        matrix = kernel(InformedCorrector(choose=choose), process, law, 0.4)
        np.testing.assert_allclose(p @ matrix, p, rtol=0, atol=1e-12)


def uniform():
    law = Law(3, 3, 3, 0.5, masked=False)
    return law, Uniform(tokens=law.tokens)


class Hollow(Toy):
    """Says that it leaves its own token out."""

    hollow = True


def test_clamps_stay_masks_stay_and_more_than_there_are_is_all():
    net = Net(Hollow.make(carry=False), PROCESSES["masked"])
    z = jnp.asarray([[0, 1, MASK, 2, 1], [MASK, MASK, 3, 0, 1]])
    fixed = jnp.asarray([[True, False, False, False, False]] * 2)
    draw = Production.of(jax.random.key(1), jnp.arange(2))
    rule = PredictorCorrector(corrector=InformedCorrector(positions=9))
    state = jit(
        lambda: sample(net, rule, draw, (z, jnp.ones(2)), 3, clamp=Clamp(z, fixed), tail="none")[0]
    )()
    assert state.z[0, 0] == 0 and state.z[1, 0] == MASK and state.calls.tolist() == [6, 6]


class Whole(Toy):
    """Says that it does not."""

    hollow = False


def test_a_network_that_sees_its_place_is_refused():
    net = Net(Whole.make(carry=False), PROCESSES["masked"])
    draw = Production.of(jax.random.key(1), jnp.arange(1))
    prior = jnp.full((1, 4), MASK, jnp.int32), jnp.ones(1)
    rule = PredictorCorrector(corrector=InformedCorrector())
    with pytest.raises(UserError, match="does not look at its own place"):
        sample(net, rule, draw, prior, 1)
    for fields in (dict(positions=2), dict(choose="random")):
        with pytest.raises(ValueError, match="one position chosen by its score"):
            InformedCorrector(accept=True, **fields)
    assert InformedCorrector(accept=True).calls == 2
