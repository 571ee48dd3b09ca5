"""The events sampler: exact law with one event a call, and what a call takes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production
from ldd_jax.core.types import Cond, TokenSpace, Trunk
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import BandKernel, Scud, Uniform, UniformKernel
from ldd_jax.samplers import Ancestral, Clamp, Events, sample
from ldd_jax.samplers.events import chosen
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState
from ldd_jax.schedules import LinearSigma
from tests.lab import Law, jit

MOST = 3  # events of a position at the start


@struct.dataclass
class LeaveOneOut:
    """p(x^i | z without i, S without i) of a law over two places, from the counts it is told."""

    p: jax.Array  # [V, V]
    process: Scud = struct.field(pytree_node=False)

    head = Identity()
    timed = True

    def trunk(self, z, cond: Cond, h=None, *, key=None, cache=None):
        """Log-laws as features."""
        count = jnp.round(jnp.expm1(cond.clock / 3))
        evidence = jnp.exp(self.process.jumps.back(z.reshape(-1), count.reshape(-1)))
        evidence = evidence.reshape(*z.shape, -1)  # K^S[x, z] by x
        joint = jnp.stack([evidence[:, 1] @ self.p.T, evidence[:, 0] @ self.p], 1)
        return Trunk(jnp.log(joint / joint.sum(-1, keepdims=True)), h)

    def latent(self, batch, length):
        """None."""


class Dictated:
    """The slot that goes first and the tokens are given; their probabilities are multiplied."""

    def __init__(self, slot, token, book=None):
        self.slot, self.token = slot, token
        self.book = [] if book is None else book

    def at(self, *, step=None, site=None):
        return self

    def rows(self, length):
        return self

    def ranking(self, logit):
        live = logit > -jnp.inf
        self.book.append(jnp.where(live[jnp.arange(len(logit)), self.slot], 1 / live.sum(1), 0))
        return jnp.where(jnp.arange(logit.shape[1]) == self.slot[:, None], 0, 9)

    def event(self, p):
        return p > 0

    def outcome(self, logp, p, stay):
        token = self.token.reshape(-1)
        chosen = jnp.exp(logp)[jnp.arange(len(token)), token]
        moved = jnp.where(p > 0, chosen, token == stay)
        self.book.append(jnp.prod(moved.reshape(-1, 2), 1))
        return token


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kernel, gamma", [(UniformKernel(), 0.0), (UniformKernel(), 0.4), (BandKernel(), 0.0)]
)
def test_one_event_a_call_gives_the_law_itself(kernel, gamma):
    """From q(z | S), for every S: p_0, by the production step's own probabilities."""
    law, size = Law(5, 3, 2, masked=False), 3
    process = Scud(
        kernel=kernel,
        gamma=gamma,
        schedule=LinearSigma(sigma_max=1.0),
        tokens=TokenSpace(size=size),
    )
    net = Net(LeaveOneOut(jnp.asarray(law.p.reshape(3, 3)), process), process)
    counts = np.array(list(itertools.product(range(MOST + 1), repeat=2)))
    state, slot = np.meshgrid(np.arange(9 * len(counts)), np.arange(2 * MOST), indexing="ij")
    state, slot = np.repeat(state.reshape(-1), 9), np.repeat(slot.reshape(-1), 9)
    token = np.tile(law.z, (len(state) // 9, 1))
    z, s = law.z[state % 9], counts[state // 9].astype(float)

    @jax.jit
    def apply(z, s, slot, token):
        draw = Dictated(slot, token)
        given = SampleState(z, s, None, z > -1, jnp.zeros(len(z)), jnp.ones(len(z)))
        new = Events()(net, given, None, draw, None)
        return new.z, new.clock, draw.book[0] * draw.book[1]

    new_z, new_s, p = map(np.asarray, apply(z, s, slot, token))
    cell = lambda z, s: (s @ [MOST + 1, 1]).astype(int) * 9 + z @ [3, 1]
    step = np.zeros((9 * len(counts),) * 2)
    on = p > 0  # a slot beyond the events of a row is never first
    np.add.at(step, (state[on], cell(new_z[on], new_s[on])), p[on])
    live = np.repeat(counts.sum(1) > 0, 9)
    np.testing.assert_allclose(step.sum(1), live, atol=1e-12)
    step[~live] = np.eye(len(step))[~live]
    after = np.linalg.matrix_power(step, 2 * MOST)

    one = np.array([np.exp(process.jumps.back(jnp.arange(3), jnp.full(3, float(n)))).T
                    for n in range(MOST + 1)])  # fmt: skip
    for number, (a, b) in enumerate(counts):
        forward = np.kron(one[a], one[b]).T @ law.p if a + b else law.p
        start = np.zeros(len(step))
        start[number * 9 : number * 9 + 9] = forward
        np.testing.assert_allclose((start @ after)[:9], law.p, atol=1e-13)


def test_events_of_a_call():
    """As many as leave `most_calls` calls, of positions that are free; one at least."""
    clock = jnp.asarray([[1, 0], [100, 60], [100, 60]])
    free = jnp.asarray([[True, True], [True, True], [False, True]])
    state = SampleState(z=clock, clock=clock, h=None, free=free, calls=None)
    np.testing.assert_array_equal(Events(most_calls=64).init(None, state), [1, 3, 1])


@pytest.mark.slow
def test_events_are_taken_without_replacement():
    """Counts by position: hypergeometric, by counting; all of them where all are wanted."""
    rows, count = 20_000, jnp.asarray([5.0, 0.0, 2.0, 1.0])
    draw = Production.of(jax.random.key(0), jnp.arange(rows))
    take = jit(lambda wanted: chosen(draw, jnp.tile(count, (rows, 1)), jnp.full(rows, wanted), 40))
    three = np.asarray(take(3))
    assert (three.sum(1) == 3).all() and (three <= count).all()
    mean, n = 3 * np.asarray(count) / 8, 8
    variance = 3 * (count / n) * (1 - count / n) * (n - 3) / (n - 1)
    assert (np.abs(three.mean(0) - mean) <= 4.5 * np.sqrt(variance / rows)).all()
    # P(one of each of the last two and one of the first) = 5 * 2 * 1 / C(8, 3).
    share = np.mean((three == [1, 0, 1, 1]).all(1))
    assert abs(share - 10 / 56) < 4.5 * np.sqrt(10 / 56 * 46 / 56 / rows)
    np.testing.assert_array_equal(take(50), np.tile(count, (rows, 1)))


@struct.dataclass
class Watching:
    """A network that notes the counts it is told in its latent, [B, L, 2]: calls, and the last."""

    head = Identity()
    timed = True

    def trunk(self, z, cond: Cond, h=None, *, key=None, cache=None):
        """Even laws."""
        count = jnp.round(jnp.expm1(cond.clock / 3))
        return Trunk(jnp.zeros((*z.shape, 5)), jnp.stack([h[..., 0] + 1, count], -1))

    def latent(self, batch, length):
        """Zeros."""
        return jnp.zeros((batch, length, 2))


@pytest.mark.slow
def test_calls_latent_and_kept_positions():
    """Calls are at most those asked for; kept positions are told 0; the latent is carried."""
    process = Scud(gamma=0.2, tokens=TokenSpace(size=5))
    net, rows, length = Net(Watching(), process), 6, 8
    keys = jax.random.split(jax.random.key(0), rows)
    fixed = jnp.zeros((rows, length), bool).at[:, :3].set(True).at[5].set(True)
    clamp = Clamp(jnp.full((rows, length), 4), fixed)
    draw = Production.of(jax.random.key(1), jnp.arange(rows))
    prior = process.prior(keys, length)
    seen = lambda state: (state.clock, state.h, state.z)
    for most, exact in ((1, 1), (5, None), (10_000, "events")):
        run = jit(lambda most=most: sample(net, Events(most_calls=most), draw, prior, 4,
                                           clamp=clamp, record=seen))  # fmt: skip
        last, (clock, h, z) = run()
        total = np.where(fixed, 0, prior[1]).sum(1)
        calls = np.asarray(last.calls)
        np.testing.assert_array_equal(calls[5], 0)
        expected = -(-total // np.maximum(np.ceil(total / most), 1))
        np.testing.assert_array_equal(calls, expected)
        if exact == "events":
            np.testing.assert_array_equal(calls, total)
        np.testing.assert_array_equal(last.h[..., 0], np.tile(calls[:, None], length))
        np.testing.assert_array_equal(np.where(fixed, last.z, 4), 4)
        assert (np.asarray(last.clock)[~np.asarray(fixed)] == 0).all()
        told = np.asarray(h[0, :5, :, 1])
        np.testing.assert_array_equal(told, np.where(fixed, 0, prior[1])[:5])
        left = np.asarray(clock[:, :5]).sum(-1)
        assert (np.diff(np.concatenate([total[None, :5], left]), axis=0) <= 0).all()


def test_refusals():
    scud, uniform = Scud(tokens=TokenSpace(size=3)), Uniform(tokens=TokenSpace(size=3))
    with pytest.raises(ValueError, match="process uniform has none .use ancestral"):
        Events().check(uniform, latent=True, timed=True)
    with pytest.raises(ValueError, match="process scud counts events .use events"):
        Ancestral().check(scud, latent=True, timed=True)
    Events().check(scud, latent=True, timed=True)
    with pytest.raises(ValueError, match="most_calls"):
        Events(most_calls=0)
