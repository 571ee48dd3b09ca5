"""Rows that have ended are left out of the batch: the same samples, and fewer rows in a call."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.config.sections import Sampling, check_compact
from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import (
    Ancestral,
    Cached,
    Clamp,
    Confidence,
    Dual,
    Fill,
    NextToken,
    Recomputed,
    Whole,
    sample_blocks,
)
from ldd_jax.samplers.guidance import guide
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.stops import Still
from tests.lab import jit, live_params
from tests.samplers.counted import SHAPES, Counted

B, L, SIZE, MASK = 8, 8, 2, 5
TOKENS = TokenSpace(size=6, mask=MASK)
MODEL = DiT(tokens=TOKENS, width=16, heads=2, depth=1, cond_width=8, time_conditioning=True)
INDEX = jnp.arange(B)


def made(compact, step, blocks=Whole(), process=Masked, model=MODEL, steps=12, **how):  # noqa: B008
    """The samples, and the rows of all calls."""
    towards = how.pop("towards", None)
    denoiser = model.bind(live_params(model, scale=how.pop("scale", 0.3)))
    net = Net(Counted(denoiser), process(tokens=TOKENS), tile=5)
    if towards is not None:
        net = guide(net, towards, null=3, gamma=2.0)
    prior = net.process.prior(example_keys(jax.random.key(1), INDEX), L)
    draw = Production.of(jax.random.key(2), INDEX)
    how |= dict(window=SIZE if model.block else L, compact=compact, blocks=blocks)
    SHAPES.clear()
    state = jit(lambda n: sample_blocks(net, step, draw, prior, n, **how)[0])(steps)
    jax.block_until_ready(state.z)
    jax.effects_barrier()
    return state, [shape[0] for shape in SHAPES]


def prompts(*lengths):
    """A clamp of prompts of several lengths."""
    fixed = jnp.arange(L) < jnp.asarray(lengths)[:, None]
    return Clamp(jnp.broadcast_to(jnp.arange(L) % MASK, (B, L)), fixed)


GIVEN = prompts(6, 0, 8, 3, 0, 8, 7, 5)
BY_BLOCK = dataclasses.replace(MODEL, block=SIZE)
CASES = {
    "own clock": dict(step=Confidence(), clamp=GIVEN),
    "stop": dict(step=Ancestral(), stop=Still(), process=Uniform),
    "guided": dict(
        step=Ancestral(),
        stop=Still(),
        model=dataclasses.replace(MODEL, num_classes=3),
        towards=INDEX % 3,
    ),
    "fill": dict(step=Ancestral(), blocks=Fill(size=4), stop=Still(), steps=6),
    "cached": dict(
        step=Ancestral(), blocks=Cached(stop=True), model=BY_BLOCK, steps=3, eos=1, clamp=GIVEN
    ),
    "recomputed": dict(
        step=Confidence(), blocks=Recomputed(stop=True), model=BY_BLOCK, eos=1, clamp=GIVEN
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_same_samples_from_fewer_rows(name):
    """Tokens, calls and laws to the bit, the latent to rounding."""
    (whole, all_rows), (compact, rows) = (made(n, **CASES[name]) for n in (0, 2))
    for field in ("z", "calls", "lawless", "free", "prompt"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(compact, field), field)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, whole.h, compact.h)
    assert len(np.unique(whole.z)) > 2 and len(np.unique(whole.calls)) > 1
    most = max(all_rows)
    assert len(rows) == len(all_rows) and set(all_rows) == {most}
    assert set(rows) <= {most, most // 2, most // 4} and sum(rows) < sum(all_rows), rows


def test_so_many_halvings_and_no_more():
    _, rows = made(1, **CASES["own clock"])
    assert set(rows) == {B, B // 2}


def test_where_no_row_ends_early_it_is_refused():
    for how, why in (
        (dict(), "here all end together"),
        (dict(step=NextToken()), "has no rows for"),
        (dict(step=Confidence(), blocks=Dual()), "made anew"),
    ):
        with pytest.raises(ValueError, match=why):
            check_compact(Sampling(compact=2, **how))
    with pytest.raises(ValueError, match="must be 0"):
        Sampling(compact=-1)
    for how in (
        dict(step=Confidence()),
        dict(stop=Still()),
        dict(blocks=Cached(stop=True)),
        dict(step=NextToken(), compact=0),
    ):
        check_compact(Sampling(**{"compact": 2, **how}))
