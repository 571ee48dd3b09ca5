"""Conditional likelihoods: the subset estimator on an enumerated law, exactly and by chance."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import TokenSpace
from ldd_jax.evaluation import conditional
from ldd_jax.processes import Masked
from tests.lab import TableHead

V, L = 3, 5
TOKENS = TokenSpace(size=V + 1, mask=V)
LAW = np.random.default_rng(0).dirichlet(np.full(V**L, 0.3)).reshape((V,) * L)


def exact(y, keep):
    """-log p(y | y at keep), by summation."""
    joint = LAW[tuple(y)]
    index = tuple(y[i] if keep[i] else slice(None) for i in range(L))
    return -math.log(joint / LAW[index].sum())


class Enumerated:
    """A network that knows the conditional law of every position given what is not masked."""

    latent, num_classes = False, 0

    def __init__(self):
        table = np.zeros(((V + 1) ** L, L, V + 1))
        for code, z in enumerate(itertools.product(range(V + 1), repeat=L)):
            index = tuple(slice(None) if a == V else slice(a, a + 1) for a in z)
            part = LAW[index]
            for i in range(L):
                marginal = part.sum(tuple(j for j in range(L) if j != i))
                full = marginal if z[i] == V else np.eye(V)[z[i]]
                table[code, i, :V] = full / full.sum()
        with np.errstate(divide="ignore"):
            self.table = jnp.asarray(np.log(table).reshape(-1, V + 1), jnp.float32)

    def bind(self, params):
        return self

    @property
    def head(self):
        return TableHead(self.table)

    def trunk(self, z, cond, h=None, **_):
        from ldd_jax.core.types import Trunk

        base = (V + 1) ** jnp.arange(L - 1, -1, -1)
        row = jnp.sum(z * base, -1)[:, None] * L + jnp.arange(L)
        return Trunk(features=row[..., None].astype(jnp.float32), latent=None)


MODEL = Enumerated()
REVEAL = jax.jit(conditional.reveal_fn(MODEL, Masked(tokens=TOKENS), 1))


def score(y, keep, draws, seed=0):
    place = np.flatnonzero(~np.asarray(keep, bool))
    chosen = conditional.subsets(len(place), draws, seed)
    hidden = np.zeros((len(chosen.hidden), L), bool)
    hidden[:, place] = chosen.hidden
    z0 = jnp.asarray(np.broadcast_to(y, hidden.shape), jnp.int32)
    found, hits = REVEAL(None, z0, jnp.asarray(hidden), jnp.ones(hidden.shape, jnp.int32))
    return conditional.combine(np.asarray(found, np.float64), chosen, bool(hits[-1]))


Y = np.random.default_rng(1).integers(0, V, (6, L))
KEEPS = ([1, 1, 1, 1, 0], [1, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0])


@pytest.mark.parametrize("keep", KEEPS)
def test_all_subsets_give_the_exact_likelihood(keep):
    for y in Y:
        found = score(y, keep, draws=31)
        assert found.exact and found.se == 0
        assert found.nats == pytest.approx(exact(y, keep), abs=2e-5)


def test_draws_give_it_within_the_interval():
    far = []
    for y in Y:
        for seed in range(20):
            found = score(y, KEEPS[3], draws=30, seed=seed)
            assert not found.exact and found.draws == 30
            far.append((found.nats - exact(y, KEEPS[3])) / found.se)
    assert np.mean(np.abs(far) < 2) > 0.9 and abs(np.mean(far)) < 0.3


def test_the_weights_are_those_of_the_k_form():
    for count in (1, 2, 5):
        chosen = conditional.subsets(count, 2**count, 0)
        assert len({tuple(h) for h in chosen.hidden}) == 2**count - 1
        # sum over n of (1/n) C(K-1, n-1) / C(K, n) = 1: every position counts once
        assert chosen.weight @ chosen.hidden == pytest.approx(np.ones(count))
    drawn = conditional.subsets(40, 64, 3)
    sizes = drawn.hidden[:-1].sum(1)
    assert sorted(set(np.diff(np.sort(sizes)))) in ([0, 1], [0, 1, 2], [1])
    assert (drawn.weight[:-1] * sizes).sum() == pytest.approx(40) and drawn.hidden[-1].all()


def test_greedy_is_the_mode_of_every_hidden_position():
    mode = [int(LAW.sum(tuple(j for j in range(L) if j != i)).argmax()) for i in range(L)]
    assert score(np.array(mode), KEEPS[3], 31).greedy
    assert not score((np.array(mode) + 1) % V, KEEPS[3], 31).greedy
