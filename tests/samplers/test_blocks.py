"""Rows longer than the window, block after block: exact laws, prefixes, the latent, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy import stats

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.oracle import laws
from ldd_jax.processes import LeftToRight, Masked
from ldd_jax.samplers import Ancestral, Clamp, Fill, FirstHitting, Slide, Whole, sample
from ldd_jax.samplers.blocks import sample_blocks
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, TOKENS, Toy

B = 4
INDEX = jnp.arange(B)


def run(kind, blocks, length, *, step=None, steps=3, window=5, clamp=None, index=INDEX):
    net = Net(Toy.make(), PROCESSES[kind], tile=6)
    prior = net.process.prior(example_keys(jax.random.key(1), index), length)
    draw = Production.of(jax.random.key(2), index)
    step = step or Ancestral()
    return jit(
        lambda: sample_blocks(
            net, step, draw, prior, steps, blocks=blocks, window=window, clamp=clamp
        )[0]
    )()


@pytest.mark.slow
def test_one_block_is_the_plain_sampler_to_the_bit():
    net = Net(Toy.make(), PROCESSES["masked"], tile=6)
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), 7)
    draw = Production.of(jax.random.key(2), INDEX)
    plain = jit(lambda: sample(net, Ancestral(), draw, prior, 3)[0])()
    for blocks, window in ((Whole(), 5), (Fill(size=7), 7), (Slide(size=2), 7)):
        found = run("masked", blocks, 7, window=window)
        np.testing.assert_array_equal(found.z, plain.z)
        np.testing.assert_array_equal(found.h, plain.h)


@pytest.mark.parametrize(
    ("blocks", "length", "expected"),
    [
        (Fill(size=2), 5, [(0, 2, 0), (2, 4, 0), (4, 5, 0)]),
        (Fill(size=3), 8, [(0, 3, 0), (3, 6, 1), (6, 8, 3)]),
        (Slide(size=2), 8, [(0, 5, 0), (5, 7, 2), (7, 8, 3)]),
        (Whole(), 8, [(0, 8, 0)]),
    ],
)
def test_blocks_cover_every_position_once(blocks, length, expected):
    spans = blocks.spans(length, min(5, length))
    assert list(zip(*(a.tolist() for a in spans))) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "blocks"), [("masked", Fill(size=3)), ("uniform", Slide(size=3))])
def test_a_longer_row_begins_like_the_shorter(kind, blocks):
    # What lies right of a window is never seen, so the row may be generated on and on.
    short, long = (run(kind, blocks, n, window=6) for n in (9, 12))
    np.testing.assert_array_equal(long.z[:, :9], short.z)
    if kind == "masked":
        assert (long.z != MASK).all()
    assert long.calls.tolist() == [4 * 3 if kind == "masked" else 3 * (3 + 1)] * B


@pytest.mark.slow
def test_clamped_positions_stay_and_count_for_what_follows():
    fixed = jnp.zeros((B, 8), bool).at[:, jnp.asarray([0, 1, 6])].set(True)
    tokens = jnp.full((B, 8), 3)
    found = run("masked", Fill(size=3), 8, clamp=Clamp(tokens, fixed))
    assert (jnp.where(fixed, found.z, 3) == 3).all() and (found.z != MASK).all()
    free = run("masked", Fill(size=3), 8)
    assert (jnp.where(fixed, -1, found.z) != jnp.where(fixed, -1, free.z)).any()


@pytest.mark.slow
def test_the_latent_moves_with_its_position_or_starts_anew():
    # The toy's latent counts the passes that a position has been in the window for.
    kept = run("masked", Slide(size=2, latent="shift"), 9)
    assert kept.h[0, :, 0].tolist() == [9, 6, 6, 3, 3]
    anew = run("masked", Slide(size=2, latent="reset"), 9)
    assert anew.h[0, :, 0].tolist() == [3] * 5


def test_rules_with_their_own_clock_finish_every_block():
    found = run("masked", Fill(size=3), 8, step=FirstHitting())
    assert (found.z != MASK).all() and found.calls.tolist() == [8] * B


@pytest.mark.slow
def test_batched_equals_single():
    whole = run("masked", Fill(size=3), 8)
    for i in range(B):
        one = run("masked", Fill(size=3), 8, index=jnp.asarray([i]))
        np.testing.assert_array_equal(one.z[0], whole.z[i])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_law_of_blocks_with_an_exact_network(size):
    # One step a block: positions of a block are independent given the blocks before it.
    law = laws.Law(3, 2, 3)
    process = Masked(tokens=law.tokens)
    net = Net(laws.Exact.of(law), process)
    n = 60_000
    index = jnp.arange(n)
    prior = process.prior(example_keys(jax.random.key(1), index), 3)
    draw = Production.of(jax.random.key(7), index)
    z = jit(
        lambda: (
            sample_blocks(net, Ancestral(), draw, prior, 1, blocks=Fill(size=size), window=3)[0].z
        )
    )()
    p = law.p.reshape(2, 2, 2)
    first = p.sum(2) if size == 1 else np.outer(p.sum((1, 2)), p.sum((0, 2)))
    last = p / p.sum(2, keepdims=True)
    expected = (first[..., None] * last).reshape(-1)
    counts = np.bincount(np.ravel_multi_index(np.asarray(z).T, (2, 2, 2)), minlength=8)
    assert stats.chisquare(counts, n * expected).pvalue > 1e-4
    if size == 2:  # the test can tell the two apart
        assert stats.chisquare(counts, n * p.reshape(-1)).pvalue < 1e-9


def test_refusals_say_why():
    with pytest.raises(ValueError, match="use blocks=slide"):
        run("uniform", Fill(size=3), 8)
    with pytest.raises(ValueError, match="left to right already"):
        Slide(size=3).check(LeftToRight(tokens=TOKENS["masked"]))
    for kind in (Fill, Slide):
        assert kind(size=1).size == 1
        with pytest.raises(ValueError, match="at least 1 position"):
            kind(size=0)
    with pytest.raises(ValueError, match="window has 5"):
        run("masked", Slide(size=6), 8)
    for bad in (lambda: Fill(size=0), lambda: Slide(latent="keep")):
        with pytest.raises(ValueError, match=r"size is 0|latent is 'keep'"):
            bad()


@pytest.mark.slow
def test_blocks_of_nothing_but_prompt_pay_no_calls():
    fixed = jnp.arange(16) < jnp.asarray([12, 12, 7, 16])[:, None]
    clamp = Clamp(jnp.full((B, 16), 3), fixed)
    found = run("masked", Fill(size=4), 16, steps=8, window=16, clamp=clamp)
    assert found.calls.tolist() == [8, 8, 24, 0]
    assert (jnp.where(fixed, found.z, 3) == 3).all() and (found.z != MASK).all()
    for i in range(B):  # whatever the company
        mine = jax.tree.map(lambda a, i=i: a[i : i + 1], clamp)
        alone = run(
            "masked", Fill(size=4), 16, steps=8, window=16, clamp=mine, index=jnp.asarray([i])
        )
        np.testing.assert_array_equal(alone.z[0], found.z[i])
        np.testing.assert_array_equal(alone.calls[0], found.calls[i])


MADE: list = []


@struct.dataclass
class Counted(Toy):
    """Notes at run time that it was called."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """As the toy's."""
        jax.debug.callback(lambda: MADE.append(z.shape))
        return super().trunk(z, cond, h)


@pytest.mark.parametrize("kind, blocks", [("masked", Fill(size=2)), ("uniform", Slide(size=2))])
def test_the_network_is_not_called_for_blocks_of_nothing_but_prompt(kind, blocks):
    """In front, between and behind; the noise removal of uniform diffusion is left out as well."""
    net, length, window = Net(Counted.make(), PROCESSES[kind], tile=6), 12, 4
    ends = blocks.spans(length, window).end
    free = ends[[1, 3]]  # the last position of two blocks
    fixed = jnp.ones((B, length), bool).at[:, free - 1].set(False)
    clamp = Clamp(jnp.full((B, length), 3), fixed)
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), length)
    draw = Production.of(jax.random.key(2), INDEX)
    more = dict(blocks=blocks, window=window, clamp=clamp)
    MADE.clear()
    state = jit(lambda: sample_blocks(net, Ancestral(), draw, prior, 3, **more)[0])()
    jax.block_until_ready(state.z)
    jax.effects_barrier()
    calls = 2 * (3 + (kind == "uniform"))
    assert len(MADE) == calls and state.calls.tolist() == [calls] * B
    assert (jnp.where(fixed, state.z, 3) == 3).all()


@pytest.mark.slow
def test_a_row_without_a_free_position_pays_no_calls_with_any_clock():
    clamp = Clamp(jnp.full((B, 5), 3), jnp.arange(5) < jnp.asarray([5, 0, 2, 5])[:, None])
    for step in (Ancestral(), FirstHitting()):
        found = run("masked", Whole(), 5, step=step, clamp=clamp)
        assert (np.asarray(found.calls) > 0).tolist() == [False, True, True, False]
        assert (found.h[0] == 0).all() and (found.z != MASK).all()
    assert run("uniform", Whole(), 5, clamp=clamp).calls.tolist() == [0, 4, 4, 0]
