"""Block diffusion: both limits, the bound by enumeration, times by block, h = 0 in clean rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.types import Attend, Batch, Cond, Trunk
from ldd_jax.denoisers import DiT
from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.evaluation.estimators import objective as estimator
from ldd_jax.objectives import (
    BlockNelbo,
    ClippedTimes,
    FractionGate,
    Nelbo,
    NextToken,
    PseudoContext,
    UniformTimes,
)
from ldd_jax.objectives.block_nelbo import Doubled, in_blocks
from ldd_jax.objectives.strata import stratified
from ldd_jax.processes import LeftToRight, Masked, Sphere, Uniform
from tests import block_law
from tests.block_law import FIELDS, MASK, PROCESS, ROWS, SIZE, TOKENS, L
from tests.lab import jit, live_params

KEY = jax.random.key(3)
OWN = dict(cond_width=8, block=SIZE)


def batch(z0, segment=None, keep=None):
    keep = jnp.zeros(z0.shape, bool) if keep is None else keep
    weight = jnp.where(keep, 0.0, 1.0)
    index = jnp.arange(len(z0))
    cond = Cond(segment=segment)
    return Batch(z0, keep, weight, cond, index, len(z0), jnp.sum(weight))


def gradient(objective, model, rows):
    def loss(params):
        found = objective(model.bind(params), rows, KEY)
        return found.total, found.metrics

    return jit(jax.value_and_grad(loss, has_aux=True))(live_params(model))


@pytest.mark.slow
@pytest.mark.parametrize("process", [PROCESS, Uniform(tokens=TOKENS)], ids=["masked", "uniform"])
def test_one_block_is_diffusion_over_the_row(process):
    """Loss and gradient with the latent of a first pass, to 1e-6."""
    whole = DiT(**FIELDS | {"depth": 1}, cond_width=8, time_conditioning=True)
    blocks = dataclasses.replace(whole, block=L)
    context = PseudoContext(p=0.5, gate=FractionGate(group=2))
    keep = jnp.zeros((8, L), bool).at[:3, 0].set(True)
    rows = batch(ROWS[::10][:8], keep=keep)
    (mine, metrics), slope = gradient(
        BlockNelbo(process=process, context=context, block=L), blocks, rows
    )
    (other, expected), theirs = gradient(Nelbo(process=process, context=context), whole, rows)
    np.testing.assert_allclose(mine, other, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss_B"], expected["loss_B"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), slope, theirs)


@struct.dataclass
class Reads(BoundNetwork):
    """A causal network read as a left-to-right one: position i from x_1 .. x_{i-1} and a mask."""

    inner: object

    @property
    def head(self):
        return self.inner.head

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        del h, key, cache
        x = jnp.concatenate([z[:, 1:], z[:, :1]], axis=1)  # the start and x less its last
        rows = [x.at[:, i].set(MASK) for i in range(z.shape[1])]
        features = [self.inner.trunk(r, cond).features[:, i] for i, r in enumerate(rows)]
        return Trunk(jnp.stack(features, axis=1), None)


@pytest.mark.slow
def test_blocks_of_one_are_a_left_to_right_model():
    """The likelihood of the causal network with the same parameters, row by row, to 1e-6."""
    model = DiT(**FIELDS, cond_width=8, latent=False, block=1)
    params, rows = live_params(model), batch(ROWS)
    causal = dataclasses.replace(model, block=0, causal=True).bind(params)
    exact = NextToken(process=LeftToRight(tokens=TOKENS))
    expected = jit(lambda: exact(Reads(causal), rows, KEY).metrics["loss_B"])()
    ones = BlockNelbo(process=PROCESS, block=1, whole=True, times=ClippedTimes(low=1.0, high=1.0))
    counted = estimator(BlockNelbo(process=PROCESS, block=1).as_bound(1), "k_form")
    for objective in (ones, counted):
        mine = jit(lambda o=objective: o(model.bind(params), rows, KEY).metrics["loss_B"])()
        np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.exp(-np.asarray(expected, np.float64)).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("name", block_law.MODELS)
def test_the_bound_is_that_of_enumeration(name):
    """Every pattern of masks with its weight, all rows; above -log p; and by drawn times."""
    denoiser = block_law.network(name)
    laws = block_law.log_laws(denoiser)
    expected, exact = block_law.bound(laws), block_law.log_likelihood(laws)
    np.testing.assert_allclose(np.exp(exact).sum(), 1, rtol=1e-5)
    assert (expected >= -exact - 1e-6).all() and (expected + exact).max() > 1e-3
    objective = BlockNelbo(process=PROCESS, block=SIZE).as_bound(1)
    given = estimator(objective, "k_form").base
    rows, total = batch(ROWS), 0
    clock = jnp.full(ROWS.shape, 0.5)
    run = jit(lambda z: given.score(denoiser, rows, z, clock, jnp.ones(len(z)), KEY, None).metrics)
    for subset in block_law.SUBSETS:
        hidden = jnp.isin(jnp.arange(L) % SIZE, jnp.asarray(subset))
        total += block_law.share(subset) * run(jnp.where(hidden, MASK, ROWS))["loss_B"]
    np.testing.assert_allclose(total, expected, rtol=2e-6, atol=1e-6)
    if name == "llama":
        return  # times are the objective's, whatever the network
    many = batch(jnp.repeat(ROWS[::4], 40, axis=0))
    truth = np.repeat(expected[::4], 40)
    for own in (objective, estimator(objective, "k_form")):
        found = jit(lambda o=own: o(denoiser, many, KEY).metrics["loss_B"])()
        gap = np.asarray(found) - truth
        assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5, own


def test_every_block_has_a_time_of_its_own():
    u = stratified(KEY, jnp.arange(8), 8)
    both = np.sort(np.asarray(in_blocks(u, 4, 8)).ravel())
    np.testing.assert_allclose(np.diff(both), 1 / 32, atol=1e-6)  # 32 strata, one in each
    np.testing.assert_array_equal(in_blocks(u, 1, 8)[:, 0], u)
    objective = BlockNelbo(process=PROCESS, block=SIZE)
    rows = batch(ROWS[:8])
    _, clock, factor = objective.corrupted(rows, u, jax.random.split(KEY, 8))
    clock = np.asarray(clock).reshape(8, -1, SIZE)
    assert (np.ptp(clock, axis=2) == 0).all() and (np.ptp(clock[..., 0], axis=1) > 0.1).all()
    assert factor.shape == (8, L)


def test_a_block_sees_clean_blocks_without_latent():
    """Each block of the doubled row is that of a row which ends with it, h within it alone."""
    model = DiT(**FIELDS, **OWN, time_conditioning=True)
    denoiser = model.bind(live_params(model, scale=0.1))
    x, z = ROWS[3:40:9], ROWS[40:77:9].at[:, 1::2].set(MASK)
    h = jax.random.normal(KEY, denoiser.latent(*x.shape).shape)
    clock = jnp.repeat(jax.random.uniform(KEY, (len(x), L // SIZE)), SIZE, axis=1)
    told = Cond(clock=jnp.concatenate([clock, jnp.zeros_like(clock)], 1), told=x)
    both = jit(lambda: Doubled(denoiser, size=SIZE).trunk(z, told, h))()
    for begin in range(0, L, SIZE):
        end = begin + SIZE
        own = lambda noise, clean, begin=begin, end=end: jnp.concatenate(
            [clean[:, :begin], noise[:, begin:end]], axis=1
        )
        attend = attend_of(end)
        cond = Cond(clock=own(clock, jnp.zeros_like(clock)), attend=attend)
        one = jit(lambda z, cond, h: denoiser.trunk(z, cond, h))(
            own(z, x), cond, own(h, jnp.zeros_like(h))
        )
        for a, b in ((both.features, one.features), (both.latent, one.latent)):
            np.testing.assert_allclose(a[:, begin:end], b[:, begin:], atol=2e-5)


def attend_of(length):
    return Attend("mask", mask=jnp.asarray(block_law.see(length, SIZE)))


def test_documents_of_a_row_do_not_see_each_other():
    """Two documents of a block each are two rows of a block."""
    denoiser = block_law.network("dit")
    objective = estimator(BlockNelbo(process=PROCESS, block=SIZE).as_bound(1), "k_form").base
    clock = jnp.full((81, L), 0.5)
    z = ROWS.at[:, ::2].set(MASK)
    score = lambda rows, z, clock: objective.score(
        denoiser, rows, z, clock, jnp.ones(len(z)), KEY, None
    ).metrics["loss_B"]
    two = jnp.broadcast_to(jnp.arange(L) // SIZE + 1, ROWS.shape)
    packed = jit(lambda: score(batch(ROWS, segment=two), z, clock))()
    parts = [
        jit(lambda i=i: score(batch(ROWS[:, i : i + SIZE]), z[:, i : i + SIZE], clock[:, :SIZE]))()
        for i in (0, SIZE)
    ]
    np.testing.assert_allclose(packed, parts[0] + parts[1], rtol=1e-5)


def test_processes_that_blocks_of_tokens_do_not_have():
    with pytest.raises(ValueError, match="gives every block of tokens a time"):
        BlockNelbo(process=Sphere(tokens=TOKENS))
    assert BlockNelbo().process is None  # it comes later


@pytest.mark.parametrize("schedule", [PROCESS.schedule, Masked(tokens=TOKENS).schedule])
def test_clipped_times_are_shares_of_masks(schedule):
    u = (jnp.arange(64) + 0.5) / 64
    t, factor = ClippedTimes(low=0.25, high=0.75)(u, schedule)
    share = schedule.noise(t) / schedule.noise(jnp.ones(()))
    np.testing.assert_allclose(np.sort(share), 0.25 + 0.5 * (np.arange(64) + 0.5) / 64, rtol=1e-5)
    np.testing.assert_allclose(factor * schedule.weight(t), 1 / share, rtol=1e-5)
    whole, one = ClippedTimes(low=0.0, high=1.0)(u, schedule)
    np.testing.assert_allclose(whole, UniformTimes(eps=0.0)(u, schedule)[0], rtol=1e-5)
    np.testing.assert_allclose(one, 1, rtol=1e-5)
    for low, high in ((0.5, 0.4), (0.5, 1.5), (-0.1, 0.5), (0.0, 0.0)):
        with pytest.raises(ValueError, match="low <= high"):
            ClippedTimes(low=low, high=high)
    assert ClippedTimes().unclipped() == UniformTimes(eps=0.0)
