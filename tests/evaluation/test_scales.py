"""Factors of the rate for uniform diffusion on a law that can be enumerated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.evaluation import scales
from ldd_jax.oracle.lab import Enumeration
from ldd_jax.oracle.laws import Exact
from ldd_jax.processes import Uniform
from ldd_jax.samplers import Ancestral, TauLeaping
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import LinearSigma
from tests.lab import Law, jit, kl

STEPS, END = 6, 0.02
T = 1 - (1 - END) * np.arange(STEPS + 1) / STEPS
FACTORS = np.array(scales.FACTORS)


def exact_costs(law, net):
    """`costs` in expectation over data and path, a row."""
    n, out = len(law.z), []
    z, x = np.repeat(law.z, len(law.x), 0), np.tile(law.x, (n, 1))
    process = net.process
    flat = lambda a: jnp.asarray(a.reshape(-1))

    @jit
    def nats(pred, t, s, factor):
        t, s = jnp.full(z.size, t), jnp.full(z.size, s)
        true = process.log_posterior(process.one_hot_prediction(flat(x), flat(z), t), flat(z), t, s)
        p = jnp.exp(true)
        q = scales.law(process, pred, flat(z), t, s, factor)
        return jnp.sum(jnp.where(p > 0, p * (true - q), 0), -1)

    for t, s in zip(T[:-1], T[1:]):
        alpha = float(process.schedule.alpha(jnp.asarray(t)))
        known = np.repeat(law.conditionals(alpha, leave_one_out=True), len(law.x), 0)
        pred = jnp.log(jnp.asarray(known.reshape(-1, law.size)))
        weight = np.repeat((law.forward(alpha) * law.p).reshape(-1), law.length)
        out.append([weight @ np.asarray(nats(pred, t, s, f)) for f in FACTORS])
    return np.array(out)


@pytest.fixture(scope="module")
def exact():
    with jax.enable_x64(True):
        law = Law(3, 3, 2, 0.5, masked=False)
        process = Uniform(tokens=law.tokens, schedule=LinearSigma(sigma_max=4.0))
        net = Net(Exact.of(law), process)
        yield law, net, exact_costs(law, net)


def test_scaled_steps_have_less_path_kl_and_less_kl(exact, x64):
    law, net, costs = exact
    chosen = scales.best(costs, FACTORS)
    alpha = lambda t: float(net.process.schedule.alpha(jnp.asarray(t)))

    def after(step, factors):
        every = Enumeration(net, step, law)
        table = every.table()
        leap = jit(lambda p, t, s: p @ every.matrix(table, t, s))
        p = law.marginal(alpha(1.0))
        for t, s, factor in zip(T[:-1], T[1:], factors):
            p = np.asarray(leap(p, t, t - factor * (t - s)))
        return kl(law.marginal(alpha(END)), p)

    ones, plain = np.ones(STEPS), int(np.flatnonzero(FACTORS == 1)[0])
    # Where all is noise, 1 - e^(-c d 2/3) is the chance (1 - e^-d) 2/3 of another letter.
    d = 4 * (T[0] - T[1])
    np.testing.assert_allclose(chosen[:4], -np.log1p(np.expm1(-d) * 2 / 3) / (d * 2 / 3), rtol=0.01)
    path = [costs[:, plain].sum(), costs.min(1).sum()]
    np.testing.assert_allclose(path, [1.6279, 1.6073], atol=5.1e-5)
    found = [after(TauLeaping(), ones), after(TauLeaping(), chosen), after(Ancestral(), ones)]
    np.testing.assert_allclose(found, [0.1779, 0.1754, 0.1128], atol=5.1e-5)


@pytest.mark.slow
def test_rows_give_the_costs_of_the_enumeration(exact, x64):
    law, net, costs = exact
    rows = 1 << 13
    rng = np.random.default_rng(0)
    x = jnp.asarray(law.x[rng.choice(len(law.x), rows, p=law.p)])
    index = jnp.arange(rows)
    keys = example_keys(jax.random.key(1), index)

    def run():
        none = jnp.zeros(x.shape, bool)
        z, _ = net.process.corrupt_to_prior(keys, x, jnp.ones(rows), none)
        draw = Production.of(jax.random.key(2), index)
        return scales.costs(net, draw, x, z, jnp.asarray(T), jnp.asarray(FACTORS))

    found = np.asarray(jit(run)()).mean(1)
    np.testing.assert_allclose(found, costs, rtol=0.05)
    np.testing.assert_allclose(scales.best(found, FACTORS), scales.best(costs, FACTORS), rtol=0.03)
