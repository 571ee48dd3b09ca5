"""Rows that end early: law and calls by enumeration of all paths; what is refused."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.oracle.lab import Enumeration
from ldd_jax.oracle.laws import Exact
from ldd_jax.processes import LeftToRight, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Chained,
    Clamp,
    Confidence,
    Latent,
    LinearGrid,
    LowEntropy,
    NextToken,
    ReMDM,
    Renoise,
    Still,
    ThetaTrapezoidal,
    sample,
)
from ldd_jax.samplers.guidance import pair
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.schedules import LinearSigma
from tests.lab import jit
from tests.samplers.rules import PROCESSES, TOKENS, Toy
from tests.samplers.test_exact import toy

STEPS, ROWS = 5, 20_000
GRID = LinearGrid(end=0.02)

# By the history of a row, (text, entropy) of every call, without a memory.
LOW = lambda bound: lambda seen: seen[-1][1] <= bound
SAME = lambda n: lambda seen: len(seen) > n and len({text for text, _ in seen[-n - 1 :]}) == 1
BOTH = lambda bound, n: lambda seen: LOW(bound)(seen) and SAME(n)(seen)

CASES = {
    "entropy": ("masked", Ancestral(), LowEntropy(threshold=0.45), LOW(0.45)),
    "still, masked": ("masked", Ancestral(), Still(), SAME(1)),
    "still": ("uniform", Ancestral(), Still(steps=2), SAME(2)),
    "chained": (
        "uniform",
        Renoise(),
        Chained(first=LowEntropy(threshold=0.6), second=Still()),
        BOTH(0.6, 1),
    ),
}


def enumerated(law, process, step, enough):
    """Probability of (text, calls), over all paths of all rows."""
    net, times = Net(Exact.of(law), process), [float(GRID(i, STEPS)) for i in range(STEPS + 1)]
    every = Enumeration(net, step, law)
    matrix = jit(lambda table, t, s: every.matrix(table, t, s))
    table, z = every.table(), jnp.asarray(law.z)
    moves = [np.asarray(matrix(table, *pair)) for pair in zip(times, times[1:])]

    @jit
    def laws(t):
        clock = jnp.full(len(z), t)
        state = every_state(net, z, clock)
        clean = lambda pred, z, t, args: process.clean(pred, z, t)
        return jnp.exp(net.rows(clean, net.trunk(state), z, clock, ()))

    clean = [np.asarray(laws(t)) for t in times]
    wanted = np.asarray(process.scored(z))
    out: Counter = Counter()

    def seen(i, a):
        rows = [clean[i][a, j] for j in range(law.length) if wanted[a, j]]
        entropy = np.mean([-(p[p > 0] * np.log(p[p > 0])).sum() for p in rows]) if rows else 0.0
        text = [clean[i][a, j].argmax() if wanted[a, j] else law.z[a, j] for j in range(law.length)]
        return tuple(text), entropy

    def finish(i, a, p, calls):
        if not wanted[a].any():
            out[tuple(law.z[a]), calls] += p
            return
        laws = [
            clean[i][a, j] if w else np.eye(law.size)[law.z[a, j]] for j, w in enumerate(wanted[a])
        ]
        for text in np.ndindex(*(len(q) for q in laws)):
            out[text, calls + 1] += p * np.prod([q[v] for q, v in zip(laws, text)])

    def walk(i, a, p, history):
        if i == STEPS:
            finish(i, a, p, i)
            return
        history = [*history, seen(i, a)]
        for b in np.flatnonzero(moves[i][a]):
            now = p * moves[i][a, b]
            if enough(history):
                finish(i + 1, b, now, i + 1)
            else:
                walk(i + 1, b, now, history)

    if process.absorbing:
        begin = np.all(law.z == law.tokens.mask, axis=1) * 1.0
    else:
        begin = np.full(len(law.z), 1 / len(law.z))
    for a in np.flatnonzero(begin):
        walk(0, a, begin[a], [])
    return out


def every_state(net, z, clock):
    nobody = jnp.zeros(len(z), jnp.int32)
    return SampleState(z, clock, None, jnp.ones(z.shape, bool), nobody)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_the_law_and_the_calls_are_those_of_all_paths(name):
    kind, step, stop, enough = CASES[name]
    law, process = toy(kind, length=2, concentration=1.0 if kind == "masked" else 30.0)
    if kind == "uniform":  # little noise, so that texts differ from the first call on
        process = Uniform(schedule=LinearSigma(sigma_max=1.5), tokens=law.tokens)
    expected = enumerated(law, process, step, enough)
    assert abs(sum(expected.values()) - 1) < 1e-9
    assert len({calls for _, calls in expected}) > 1, expected

    @jit
    def run(rows):
        prior = process.prior(example_keys(jax.random.key(1), rows), law.length)
        draw = Production.of(jax.random.key(2), rows)
        net = Net(Exact.of(law), process, tile=4096)
        return sample(net, step, draw, prior, STEPS, grid=GRID, stop=stop)[0]

    made = run(jnp.arange(ROWS))
    assert made.h is None
    found = Counter((tuple(z), int(c)) for z, c in zip(np.asarray(made.z).tolist(), made.calls))
    assert set(found) <= {k for k, p in expected.items() if p > 0}
    keys = [k for k, p in expected.items() if p * ROWS >= 5]
    count, mean = (
        np.array([f(k) for k in keys]) for f in (found.__getitem__, expected.__getitem__)
    )
    rest = [ROWS - count.sum(), 1 - mean.sum()]
    chi = ((count - mean * ROWS) ** 2 / (mean * ROWS)).sum()
    if rest[1] * ROWS > 1:
        chi += (rest[0] - rest[1] * ROWS) ** 2 / (rest[1] * ROWS)
    assert stats.chi2.sf(chi, len(keys)) > 1e-4


B, L = 4, 6
INDEX = jnp.arange(B)
CLAMP = Clamp(jnp.full((B, L), 4, jnp.int32), jnp.zeros((B, L), bool).at[0].set(True))


def run_of(step, kind, net_of=lambda net: net, traced=lambda: None, **settings):
    """A program of a number of steps; `traced` is called whenever it is traced."""
    process = PROCESSES[kind]
    net = net_of(Net(Toy.make(), process, tile=8))

    @jit
    def run(steps):
        traced()
        prior = process.prior(example_keys(jax.random.key(1), INDEX), L)
        draw = Production.of(jax.random.key(2), INDEX)
        return sample(net, step, draw, prior, steps, clamp=CLAMP, **settings)[0]

    return run


PASSES = {"guided": 2}
REMASK = {"latent": Latent(reset_on_remask=True)}
SAME_CASES = {
    "ancestral": (Ancestral(), "masked", {}),
    "two calls": (ThetaTrapezoidal(), "uniform", {}),
    "own clock": (Confidence(threshold=0.6), "masked", {}),
    "remasking": (ReMDM(eta=0.4), "masked", REMASK),
    "guided": (Ancestral(), "masked", {"net_of": lambda n: pair(n, None, null=-1, gamma=2.0)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME_CASES)
def test_a_stop_that_never_comes_changes_nothing(name):
    step, kind, settings = SAME_CASES[name]
    traces = []
    plain = run_of(step, kind, **settings)
    never = dict(stop=Still(steps=99), traced=lambda: traces.append(1))
    watched = run_of(step, kind, **settings, **never)
    a, b = plain(5), watched(5)
    np.testing.assert_array_equal(a.z, b.z)
    spared = np.asarray(a.calls - b.calls)  # the tail of rows that have no mask left
    if kind == "masked":
        assert set(spared) <= {0, PASSES.get(name, 1)}
    else:
        assert not spared.any()
        jax.tree.map(np.testing.assert_array_equal, a.h, b.h)
    watched(9)
    assert len(traces) == 1  # one program for all numbers of steps


@pytest.mark.slow
def test_a_row_that_stops_pays_one_step_and_the_tail():
    """At any entropy all rows stop after one step; a rule of its own clock, too."""
    for step in (Ancestral(), Confidence()):
        made = run_of(step, "masked", stop=LowEntropy(threshold=9.0))(50)
        assert made.calls.tolist() == [0, 2, 2, 2]
        assert (made.z != TOKENS["masked"].mask).all() and (made.z[0] == 4).all()
    whole = run_of(Ancestral(), "masked")(1)  # the same two calls
    once = run_of(Ancestral(), "masked", stop=LowEntropy(threshold=9.0), grid=LinearGrid())(1)
    np.testing.assert_array_equal(whole.z, once.z)


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: LowEntropy(threshold=-1.0), "must be 0 or more"),
        (lambda: Still(steps=0), "at least 1"),
        (lambda: Chained(second=LowEntropy(threshold=float("nan"))), "must be 0 or more"),
        (lambda: Still().check(NextToken(), "sample"), "makes a whole row"),
        (lambda: Still().check(Ancestral(), "none"), "tail none"),
        (lambda: Renoise(gamma=-1.0), "must be 0 or more"),
        (lambda: Renoise().check(PROCESSES["masked"], latent=False, timed=False), "uniform"),
        (
            lambda: Renoise().check(
                LeftToRight(tokens=TOKENS["masked"]), latent=False, timed=False
            ),
            "uniform",
        ),
    ],
)
def test_what_is_refused(make, why):
    with pytest.raises(ValueError, match=why):
        make()
