"""Messages of a hidden Markov chain against enumeration, and samplers on 64 positions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond
from ldd_jax.oracle import chain
from ldd_jax.oracle.laws import Exact, Law
from ldd_jax.samplers import Ancestral, FirstHitting
from ldd_jax.samplers.confidence import Confidence


def enumerated(law, vocabulary, length, masked):
    """The chain as an enumerated law."""
    out = Law(0, vocabulary, length, masked=masked)
    start, move, emit = (np.asarray(a) for a in (law.start, law.move, law.emit))
    states = range(len(start))
    for i, x in enumerate(out.x):
        total = 0.0
        for s in itertools.product(states, repeat=length):
            p = start[s[0]] * emit[s[0], x[0]]
            for a, b, token in zip(s, s[1:], x[1:]):
                p *= move[a, b] * emit[b, token]
            total += p
        out.p[i] = total
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("masked", [True, False])
def test_messages_are_the_enumerated_posteriors(masked):
    law = chain.Chain.random(1, states=3, vocabulary=2)
    whole = enumerated(law, 2, 4, masked)
    np.testing.assert_allclose(whole.p.sum(), 1, atol=1e-12)
    np.testing.assert_allclose(
        law.log_likelihood(jnp.asarray(whole.x)), np.log(whole.p), atol=1e-10
    )
    z = jnp.asarray(whole.z)
    cond = Cond(clock=jnp.full(len(z), 0.7))
    found = chain.ExactChain(law, masked).trunk(z, cond).features
    truth = Exact.of(whole).trunk(z, cond).features
    hidden = (z == 2) if masked else jnp.ones(z.shape, bool)
    np.testing.assert_allclose(np.exp(found)[hidden], np.exp(truth)[hidden], atol=1e-9)


@pytest.mark.slow
def test_exact_draws_have_the_exact_pairs():
    bench = chain.Bench(states=3, vocabulary=3, length=6)
    law = chain.Chain.random(2, 3, 3)
    x = np.asarray(law.draw(jax.random.key(0), 40_000, 6))
    np.testing.assert_allclose(bench.pairs(x), bench.exact_pairs(law), atol=6e-3)
    assert bench.exact_pairs(law).sum() == pytest.approx(1)


@pytest.mark.slow
def test_long_rows():
    """One position a call has no error; many at once do, in both figures; more steps help."""
    rules = {
        "ancestral": Ancestral(),
        "first": FirstHitting(),
        "sampled": Confidence(order="sampled"),
    }
    cases = iter(rules.items())
    found = {(m.sampler, m.process): m for m in chain.Bench(number=1024).run(cases, (4, 64))}
    masked = {(name, "masked") for name in ("ancestral", "first", "sampled")}
    assert set(found) == masked | {("ancestral", "uniform")}
    first = found["first", "masked"]
    assert first.calls == [64.0] and abs(first.excess[0]) < 4 * first.excess_se[0]
    assert first.pair_tv[0] < 1.6 * first.floor
    for kind in ("masked", "uniform"):
        few, many = range(2)
        m = found["ancestral", kind]
        assert m.excess[few] - m.excess[many] > 4 * m.excess_se[few]
        assert m.pair_tv[few] > 2 * m.pair_tv[many]
    # drawn tokens that choose their place make samples too typical
    typical = found["sampled", "masked"]
    assert typical.excess[0] < -10 * typical.excess_se[0]
    assert typical.pair_tv[0] > 3 * typical.floor
