"""A clock for every patch: exact laws by enumeration; equal clocks are the ancestral rule."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production
from ldd_jax.core.types import TokenSpace
from ldd_jax.oracle.laws import Exact
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Ancestral, Clamp, LinearGrid, PatchClock, sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.patch_clock import Clocks
from ldd_jax.samplers.state import SampleState
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, Toy

X = np.array(list(itertools.product(range(2), repeat=4)))
Z = np.array(list(itertools.product(range(3), repeat=4)))
UNIT = np.array([0, 0, 1, 1])


def toy():
    """Two patches of two letters: the first almost certain, the second two coins that agree."""
    first = np.where(X[:, 0] == 1, 0.02, 0.98) * np.where(X[:, 1] == 1, 0.03, 0.97)
    second = np.where(X[:, 2] == X[:, 0], 0.6, 0.4) * np.where(X[:, 3] == X[:, 2], 0.95, 0.05)
    return first * second


P = toy()


def marginals(z):
    """p(x_i = 1 | visible letters of z), [4]."""
    on = ((z == 2) | (z == X)).all(1) * P
    return (on @ X) / on.sum()


def reference(steps):
    """The law after all steps, by plain enumeration of who is revealed and of tokens."""
    law = {(2,) * 4: 1.0}
    for j in range(max(steps)):
        after: dict = {}
        for z, p in law.items():
            one = marginals(np.array(z))
            choices = []
            for i in range(4):
                chance = 1 / max(steps[UNIT[i]] - j, 1)
                if z[i] != 2:
                    choices.append([(z[i], 1.0)])
                else:
                    choices.append(
                        [(2, 1 - chance), (1, chance * one[i]), (0, chance * (1 - one[i]))]
                    )
            for combination in itertools.product(*choices):
                q = p * np.prod([c[1] for c in combination])
                if q > 0:
                    key = tuple(c[0] for c in combination)
                    after[key] = after.get(key, 0) + q
        law = after
    return np.array([law.get(tuple(x), 0.0) for x in X])


class Dictated:
    """Tokens are given; the probability of each row's outcome is written down."""

    def __init__(self, token, book):
        self.token, self.book = token, book

    def at(self, *, step=None, site=None):
        return self

    def rows(self, length):
        return self

    def event(self, p):
        return p > 0

    def outcome(self, logp, p, stay):
        token = self.token.reshape(-1)
        drawn = jnp.exp(logp)[jnp.arange(len(token)), token]
        self.book.append(p * drawn + (1 - p) * (token == stay))
        return token


def net_of(p=P):
    exact = Exact(jnp.asarray(p), jnp.asarray(X), 3, True)
    process = Masked(tokens=TokenSpace(size=3, mask=2), schedule=LogLinear(eps=0.0))
    return Net(exact, process, number=0, unit=jnp.asarray(UNIT)[None])


def law_of(rule, steps):
    """Of the production step, with clocks that its first call has set to `steps`."""
    net = net_of()
    source, target = np.repeat(Z, 81, 0), np.tile(Z, (81, 1))
    law = np.zeros(81)
    law[-1] = 1

    def apply(j):
        book = []
        memory = Clocks(
            jnp.asarray(steps, jnp.int32)[UNIT][None].repeat(6561, 0), jnp.zeros(6561, jnp.int32)
        )
        at = Net(net.denoiser, net.process, number=j, unit=jnp.tile(UNIT, (6561, 1)))
        state = SampleState(
            jnp.asarray(source), jnp.ones(6561), None, source > -1, jnp.zeros(6561), memory
        )
        new = rule(at, state, None, Dictated(jnp.asarray(target), book), None)
        assert len(book) == 1
        return jnp.prod(book[0].reshape(-1, 4), 1), new.memory

    for j in range(max(steps)):
        p, memory = jit(lambda j=j: apply(j))()
        if j == 0:  # set by the network's entropies at the first call
            np.testing.assert_array_equal(memory.steps[-1], np.asarray(steps)[UNIT])
        law = law @ np.asarray(p).reshape(81, 81)
    return np.array([law[int(x @ [27, 9, 3, 1])] for x in X])


def entropies():
    """Sum over each patch of its letters' entropies, all masked."""
    one = marginals(np.full(4, 2))
    h = -(one * np.log(one) + (1 - one) * np.log(1 - one))
    return h[:2].sum(), h[2:].sum()


kl = lambda q: float((P * np.log(P / q)).sum())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "rule, steps",
    [(PatchClock(alpha=2.1), (1, 3)), (PatchClock(alpha=0.0, least=2), (2, 2))],
    ids=["by entropy", "uniform"],
)
def test_the_law_is_that_of_enumeration(rule, steps):
    low, high = entropies()
    assert low < 0.4 < 1.3 < high
    law = law_of(rule, steps)
    np.testing.assert_allclose(law, reference(steps), atol=1e-12)
    assert abs(law.sum() - 1) < 1e-12


def test_entropy_clocks_are_better_at_equal_work():
    """By the enumeration that the production step equals; with the clocks swapped, worse."""
    found = {s: kl(reference(s)) for s in ((1, 3), (2, 2), (3, 1), (1, 7), (4, 4), (7, 1))}
    table = [found[k] for k in ((1, 3), (2, 2), (3, 1), (1, 7), (4, 4), (7, 1))]  # docs/patches.md
    np.testing.assert_allclose(table, [0.09, 0.1646, 0.4798, 0.0241, 0.0581, 0.4797], atol=6e-5)
    assert found[1, 3] < found[2, 2] < found[3, 1]
    assert found[1, 7] < found[4, 4] < found[7, 1]
    assert found[1, 7] < found[1, 3] and abs(kl(reference((200, 200)))) < 2e-3


@pytest.mark.parametrize(
    ("schedule", "carry"),
    [
        pytest.param(LogLinear(eps=0.0), True, id="linear"),
        pytest.param(LogLinear(eps=0.0), False, id="uncarried", marks=pytest.mark.slow),
        pytest.param(Cosine(), True, id="cosine", marks=pytest.mark.slow),
    ],
)
def test_equal_clocks_are_the_ancestral_sampler_to_the_bit(schedule, carry):
    process = Masked(tokens=TokenSpace(size=5, mask=MASK), schedule=schedule)
    rows, length, steps = 16, 12, 5
    prior = jnp.full((rows, length), MASK, jnp.int32), jnp.ones(rows)
    net, draw = (
        Net(Toy.make(carry=carry), process),
        Production.of(jax.random.key(3), jnp.arange(rows)),
    )
    own = PatchClock(alpha=0.0, least=steps, size=5)
    one = jit(lambda: sample(net, own, draw, prior, 1)[0])()
    other = jit(
        lambda: sample(net, Ancestral(), draw, prior, steps, grid=LinearGrid(end=0.0), tail="none")[
            0
        ]
    )()
    np.testing.assert_array_equal(one.z, other.z)
    assert (one.z != MASK).all() and (one.calls <= steps).all()
    if carry:
        np.testing.assert_array_equal(one.h[..., 0], np.tile(one.calls[:, None], length))


def test_calls_and_work():
    """At most max T and sum T; equal to them where a patch is one call, or cannot end early."""
    rows, length = 32, 12
    prior = jnp.full((rows, length), MASK, jnp.int32), jnp.ones(rows)
    net, draw = (
        Net(Toy.make(), PROCESSES["masked"]),
        Production.of(jax.random.key(3), jnp.arange(rows)),
    )
    given = np.random.default_rng(0).random((rows, length)) < 0.4
    clamp = Clamp(jnp.zeros((rows, length), jnp.int32), jnp.asarray(given))
    run = lambda rule: jit(lambda: sample(net, rule, draw, prior, 1, clamp=clamp)[0])()
    open_patches = (~given.reshape(rows, 4, 3).all(2)).sum(1)
    once = run(PatchClock(alpha=0.0, least=1, size=3))
    assert (once.calls == 1).all()
    np.testing.assert_array_equal(once.memory.work, open_patches)
    rule = PatchClock(alpha=1.3, most=9, size=3)
    state = run(rule)
    steps = np.asarray(state.memory.steps)[:, ::3]
    assert steps.min() >= 1 and len(np.unique(steps)) > 2 and steps.max() <= 9
    assert (state.calls <= steps.max(1)).all() and (state.memory.work <= steps.sum(1)).all()
    assert (np.asarray(state.memory.work) >= np.asarray(state.calls)).all()
    dealt = run(PatchClock(alpha=1.3, most=9, size=3, shuffle=True)).memory.steps[:, ::3]
    live = ~given.reshape(rows, 4, 3).all(2)
    order = lambda a: np.sort(np.where(live, a, 0), 1)
    np.testing.assert_array_equal(order(dealt), order(steps))
    assert (np.asarray(dealt) != steps).any()


def test_refusals():
    step, masked = PatchClock(), PROCESSES["masked"]
    with pytest.raises(ValueError, match="needs masked diffusion"):
        step.check(Uniform(tokens=TokenSpace(size=3)), latent=False, timed=False)
    step.check(masked, latent=True, timed=False)
    with pytest.raises(ValueError, match="most no less than least"):
        PatchClock(least=9, most=3)
