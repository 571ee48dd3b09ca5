"""A temperature for every step: what it does to the exact law of few steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production
from ldd_jax.oracle.lab import Enumeration
from ldd_jax.oracle.laws import Exact
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, sample
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import LogLinear
from tests.lab import Law, jit, kl

STEPS = 4
# logit scale -> exact KL and entropy of four equal steps
FIGURES = {
    0.9: (0.0544, 3.04),
    1.0: (0.0441, 3.01),
    1.15: (0.0352, 2.96),
    1.3: (0.0330, 2.91),
    1.6: (0.0446, 2.80),
}


class ByStep(Readout):
    """A read-out whose factors are traced, so that one program serves all of them."""

    def __init__(self, factors):
        super().__init__()
        object.__setattr__(self, "factors", factors)

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__

    def at(self, number):
        return self.factors[number]


@pytest.fixture(scope="module")
def sampled():
    """(p_0, factors [4] -> the law of four equal steps)."""
    with jax.enable_x64(True):
        law = Law(3, 3, 3, 0.5)
        net = Net(Exact.of(law), Masked(tokens=law.tokens, schedule=LogLinear(eps=0.0)))
        table = Enumeration(net, Ancestral(), law).table()

        @jit
        def run(table, factors):
            p = jnp.asarray(law.marginal(0.0))
            for k in range(STEPS):
                at = dataclasses.replace(net, readout=ByStep(factors), number=k)
                every = Enumeration(at, Ancestral(), law)
                p = p @ every.matrix(table, 1 - k / STEPS, 1 - (k + 1) / STEPS)
            return p

        def law_of(factors):
            with jax.enable_x64(True):
                return np.asarray(run(table, jnp.asarray(factors, float)))

        yield law.marginal(1.0), law_of


def entropy(p):
    return -float(p[p > 0] @ np.log(p[p > 0]))


@pytest.mark.parametrize("scale", FIGURES)
def test_one_temperature(scale, sampled):
    target, law_of = sampled
    found = law_of(np.full(STEPS, 1 / scale))
    assert abs(kl(target, found) - FIGURES[scale][0]) < 5.1e-5
    assert abs(entropy(found) - FIGURES[scale][1]) < 5.1e-3


def test_the_best_temperatures(sampled):
    """One for all steps takes a quarter of the KL away at scale 1.28; four take half of it."""
    target, law_of = sampled
    nats = lambda factors: kl(target, law_of(factors))
    plain = nats(np.ones(STEPS))
    grid = {s: nats(np.full(STEPS, 1 / s)) for s in np.arange(1.2, 1.36, 0.01)}
    best = min(grid, key=grid.get)
    assert abs(best - 1.28) < 0.011 and abs(grid[best] / plain - 0.75) < 0.01
    # The best within [1/2, 2] (Powell): the first step as hot as it may, the others ever colder.
    each = [2.0, 1.01, 0.67, 0.52]
    assert abs(nats(each) - 0.0219) < 5.1e-5
    assert all(nats(each * (1 + tiny)) > nats(each) for tiny in 0.1 * np.eye(STEPS)[1:])


@pytest.mark.slow
def test_steps_take_their_own():
    """In the loop: cold steps take the most probable token, and the removal is the last step."""
    law = Law(3, 3, 3, 0.5)
    process = Masked(tokens=law.tokens, schedule=LogLinear())
    prior = process.prior(jnp.arange(64), 3)
    draw = Production.of(jax.random.key(0), jnp.arange(64))

    def drawn(**how):
        net = Net(Exact.of(law), process, Readout(**how))
        return np.asarray(jit(lambda: sample(net, Ancestral(), draw, prior, 2)[0].z)())

    cold, plain = 1e-4, drawn()
    np.testing.assert_array_equal(drawn(temperatures=(1.0, 1.0, cold)), plain)  # nothing was left
    late = drawn(temperatures=(1.0, cold))
    assert (late != plain).any() and (late == plain).any()
    np.testing.assert_array_equal(
        drawn(temperatures=(3.0,), temperature=0.5), drawn(temperature=1.5)
    )


@pytest.mark.parametrize("bad", [(0.0,), (1.0, -1.0), (float("inf"),), (float("nan"),)])
def test_what_is_no_temperature(bad):
    with pytest.raises(ValueError, match="temperatures are"):
        Readout(temperatures=bad)
