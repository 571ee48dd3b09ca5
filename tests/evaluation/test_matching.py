"""What the published loss of learned samplers does to an exact law, beside what is best for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.evaluation.matching import match
from ldd_jax.oracle.lab import Enumeration
from ldd_jax.oracle.laws import Exact
from ldd_jax.processes import Masked
from ldd_jax.samplers import Euler, LinearGrid, TauLeaping, sample
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import LogLinear
from tests.lab import Law, jit, kl

ROWS = 1 << 14
FIGURES = {4: ((1, 0.69, 0.43, 0.20), 0.04407, 0.06884), 8: (None, 0.01608, 0.05118)}


def published(law, steps, finer):
    """Phi [M] and the exact KL of the student, by enumeration with independent runs."""
    net = Net(Exact.of(law), Masked(tokens=law.tokens, schedule=LogLinear(eps=0.0)))
    every = Enumeration(net, Euler(), law)
    table = every.table()
    leap = jit(lambda p, t, s: p @ every.matrix(table, t, s))
    hidden = law.z == law.vocabulary
    mu = np.where(hidden[..., None], law.conditionals(0.5, leave_one_out=False), 0)
    mu = mu.reshape(len(law.z), -1)
    mine = theirs = law.marginal(0.0)
    scales = []
    for k in range(steps):
        t = 1 - k / steps
        scales.append((theirs @ mu) @ (mine @ mu) / (mine @ (mu * mu).sum(1)))
        scale = scales[-1] if k < steps - 1 else 1  # the last step reveals what is left
        mine = np.asarray(leap(mine, t, t - scale / steps))
        for j in range(finer):
            there = t - j / steps / finer
            theirs = np.asarray(leap(theirs, there, there - 1 / steps / finer))
    return np.array(scales), kl(law.marginal(1.0), mine)


@pytest.mark.parametrize("steps", FIGURES)
def test_it_shrinks_the_scales_and_worsens_the_law(steps, x64):
    """KL of equal steps .04407 and .01608; the best scales are above 1 (`test_path`)."""
    scales, plain, worse = FIGURES[steps]
    found, nats = published(Law(3, 3, 3, 0.5), steps, 64 // steps)
    assert abs(found[0] - 1) < 1e-12 and (np.diff(found) < 0).all()
    if scales:
        np.testing.assert_allclose(found, scales, atol=5.1e-3)
    assert abs(nats - worse) < 5e-6 and nats > plain


@pytest.mark.slow
def test_runs_give_the_scales_of_the_enumeration(x64):
    """Production runs of many rows, teacher and student drawn apart."""
    law = Law(3, 3, 3, 0.5)
    net = Net(Exact.of(law), Masked(tokens=law.tokens, schedule=LogLinear(eps=0.0)))
    index = jnp.arange(ROWS)
    draws = tuple(Production.of(jax.random.key(i), index) for i in (0, 1))
    prior = net.process.prior(example_keys(jax.random.key(2), index), 3)
    found = jit(lambda: match(net, draws, prior, 4, 4, grid=LinearGrid(end=0.0)))()
    expected, _ = published(law, 4, 4)
    np.testing.assert_allclose(found.scales, expected, atol=0.01)
    np.testing.assert_allclose(found.both / found.own, found.scales)
    assert float(found.scales[0]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("rule", [Euler, TauLeaping])
def test_scales_go_by_step(rule):
    """The first step does nothing, the second all."""
    law = Law(3, 3, 3, 0.5)
    net = Net(Exact.of(law), Masked(tokens=law.tokens, schedule=LogLinear(eps=0.0)))
    index = jnp.arange(8)
    draw = Production.of(jax.random.key(0), index)
    prior = net.process.prior(example_keys(jax.random.key(2), index), 3)
    step, grid = rule(scales=(1e-9, 50.0)), LinearGrid(end=0.0)
    masked = lambda state: net.process.scored(state.z).sum()
    run = lambda: sample(net, step, draw, prior, 2, grid=grid, tail="none", record=masked)[1]
    assert jit(run)().tolist() == [24, 0]
    with pytest.raises(ValueError, match="scales are"):
        rule(scales=(1.0, 0.0))
