"""Ancestral's law at the calls of busy intervals only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy import stats

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import TokenSpace, Trunk
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import Masked
from ldd_jax.samplers import Ancestral, Clamp, CosineGrid, LinearGrid, Skipping, sample
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import jit
from tests.samplers.rules import MASK, SIZE, TOKENS, Toy

L, ROWS = 3, 60_000


def drawn(step, steps, *, seed=2, rows=ROWS, timed=False, clamp=None, **options):
    """Final states of the production sampler with the toy network."""
    schedule = options.pop("schedule", LogLinear())
    grid = options.pop("grid", LinearGrid())
    process = Masked(tokens=TOKENS["masked"], schedule=schedule)
    index = jnp.arange(rows)
    prior = process.prior(example_keys(jax.random.key(1), index), L)
    draw = Production.of(jax.random.key(seed), index)
    net = Net(Toy.make(carry=False, timed=timed), process, **options)
    run = jit(lambda n: sample(net, step, draw, prior, n, grid=grid, clamp=clamp)[0])
    return run(steps)


def texts(state):
    """How often each text came."""
    z = np.asarray(state.z)
    assert (z != MASK).all()
    return np.bincount(z @ SIZE ** np.arange(L), minlength=SIZE**L)


CASES = {
    "one step": (1, False, {}),
    "few": (3, False, {}),
    "told the time": (3, True, dict(schedule=Cosine())),
    "another grid": (5, True, dict(grid=CosineGrid(end=0.1))),
    "much left at the end": (4, False, dict(grid=LinearGrid(end=0.4))),
    "in tiles": (3, False, dict(tile=64)),
}


QUICK = ("few", "told the time")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_the_law_is_that_of_ancestral(name):
    """Two samples of 60,000 texts; the network has dependent, non-ideal predictions."""
    steps, timed, options = CASES[name]
    pair = [texts(drawn(s, steps, seed=i, timed=timed, **options)) for i, s in enumerate(
        (Skipping(), Ancestral())
    )]  # fmt: skip
    table = np.stack(pair)
    table = table[:, table.sum(0) > 20]
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.slow
def test_calls_are_the_intervals_that_reveal():
    """N + 1 intervals with their chances: calls are those that at least one of L picks meet."""
    steps, end = 4, 0.1
    state = drawn(Skipping(), steps, grid=LinearGrid(end=end), schedule=LogLinear(eps=0.0))
    chances = np.append(np.full(steps, (1 - end) / steps), end)
    expected = np.sum(1 - (1 - chances) ** L)
    calls = np.asarray(state.calls)
    assert calls.max() == L and calls.min() == 1
    assert abs(calls.mean() - expected) < 4 * calls.std() / ROWS**0.5
    all_at_once = (calls == 1).mean()
    assert abs(all_at_once - np.sum(chances**L)) < 4 * (all_at_once / ROWS) ** 0.5


def test_rows_end_by_themselves_and_given_tokens_stay():
    rows = 512
    fixed = jnp.zeros((rows, L), bool).at[:, 0].set(True).at[: rows // 2].set(True)
    tokens = jnp.full((rows, L), 4, jnp.int32)
    state = drawn(Skipping(), 1000, rows=rows, clamp=Clamp(tokens=tokens, fixed=fixed))
    z, calls = np.asarray(state.z), np.asarray(state.calls)
    assert (z[np.asarray(fixed)] == 4).all() and (z != MASK).all()
    assert (calls[: rows // 2] == 0).all() and set(calls[rows // 2 :]) <= {1, 2}


@struct.dataclass
class Clockwork:
    """Says the time: token i for the i-th of these, whichever is nearest."""

    times: tuple[float, ...] = (1.0, 0.7, 0.4, 0.1)
    head = Identity()
    timed = True

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        level = LogLinear().noise(jnp.asarray(self.times))
        told = -jnp.expm1(-cond.clock)[:, None]
        logits = -1e6 * (told - level) ** 2
        return Trunk(jnp.broadcast_to(logits[:, None], (*z.shape, len(self.times))), None)

    def latent(self, batch, length):
        return None


def test_times_are_those_of_the_grid_down_to_its_end():
    """Two intervals and the rest: the network is told 1, 0.7 or 0.4 and nothing below."""
    process, index = Masked(tokens=TokenSpace(size=5, mask=4)), jnp.arange(512)
    prior = process.prior(example_keys(jax.random.key(1), index), L)
    draw = Production.of(jax.random.key(2), index)
    run = lambda: (
        sample(Net(Clockwork(), process), Skipping(), draw, prior, 2, grid=LinearGrid(end=0.4))[0].z
    )
    assert np.unique(jit(run)()).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_one_program_for_all_numbers_of_steps():
    traced = []

    class Counting(Skipping):
        registered = Skipping.registered

        def __call__(self, *args):
            traced.append(1)
            return super().__call__(*args)

    process = Masked(tokens=TOKENS["masked"])
    index = jnp.arange(4)
    prior = process.prior(example_keys(jax.random.key(1), index), L)
    draw = Production.of(jax.random.key(2), index)
    net = Net(Toy.make(carry=False), process)
    run = jit(lambda n: sample(net, Counting(), draw, prior, n)[0])
    for steps in (1, 7, 4096):
        assert (np.asarray(run(jnp.int32(steps)).z) != MASK).all()
    assert len(traced) == 1
