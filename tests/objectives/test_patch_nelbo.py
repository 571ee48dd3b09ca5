"""Whole patches masked: the bound against enumeration, what leaks not, and its sampler."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production
from ldd_jax.core.types import Batch, Cond, TokenSpace, Trunk
from ldd_jax.denoisers import Blt
from ldd_jax.objectives import NoContext, PatchNelbo, UniformTimes
from ldd_jax.oracle.laws import Identity
from ldd_jax.processes import Masked, Uniform
from ldd_jax.samplers import Clamp, Latent, PatchAncestral, sample
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import LogLinear
from tests.lab import jit, live_params

X = np.array(list(itertools.product(range(2), repeat=4)))
P = np.random.default_rng(4).dirichlet(np.full(16, 0.5))
SPACE = TokenSpace(size=3, mask=2)
PROCESS = Masked(tokens=SPACE, schedule=LogLinear(eps=0.0))
UNIT = np.array([0, 0, 1, 1])


@struct.dataclass
class Inside:
    """p(b_i | told b_<i of its patch, what z shows of the other patch) of the law."""

    p: jax.Array

    head = Identity()
    timed = False

    def trunk(self, z, cond: Cond, h=None, *, key=None, cache=None):
        """Log-laws as features."""
        rows = []
        for i in range(4):
            mine = UNIT[i] == UNIT
            shown = jnp.where(~mine & (z != 2), z, -1)
            before = jnp.where(mine & (np.arange(4) < i), cond.told, shown)
            on = ((before[:, None] == X[None]) | (before[:, None] < 0)).all(2) * self.p
            one = (on @ X[:, i]) / on.sum(1)
            rows.append(jnp.log(jnp.stack([1 - one, one, jnp.zeros_like(one)], -1)))
        return Trunk(jnp.stack(rows, 1), None)

    def latent(self, batch, length):
        """None."""


def batch_of(x, unit=None):
    n = len(x)
    return Batch(
        z0=jnp.asarray(x),
        keep=jnp.zeros(x.shape, bool),
        weight=jnp.ones(x.shape),
        cond=Cond(unit=unit),
        index=jnp.arange(n),
        total=n,
        norm=jnp.ones(()),
    )


def objective(**how):
    return PatchNelbo(
        process=PROCESS, context=NoContext(), times=UniformTimes(), size=2, groups=1, num_classes=0,
        dropout=False, **how,
    )  # fmt: skip


@pytest.mark.usefixtures("x64")
def test_the_bound_is_the_likelihood():
    """sum over masked sets S of B(|S|, 2 - |S| + 1) times the integrand = -log p(x), every x."""
    net, whole = Inside(jnp.asarray(P)), objective(tile=0)
    total = np.zeros(16)
    for hidden in ((0,), (1,), (0, 1)):
        n = len(hidden)
        beta = math.gamma(n) * math.gamma(3 - n) / math.gamma(3)  # int t^(n-1) (1-t)^(2-n) dt
        z = jnp.where(np.isin(UNIT, hidden), 2, X)
        clock = jnp.full(16, 0.5)
        factor = jnp.full(16, beta) / PROCESS.schedule.weight(clock)
        loss = whole.score(net, batch_of(X), z, clock, factor, jax.random.key(0), None)
        total += np.asarray(loss.metrics["loss_B"])
    np.testing.assert_allclose(total, -np.log(P), atol=1e-10)


@pytest.mark.slow
def test_patches_are_masked_whole_and_as_often_as_the_time_says():
    """And the drawn bound has the likelihood as its mean."""
    count, x = 20_000, X[5]
    batch = batch_of(np.tile(x, (count, 1)))
    bound, net = objective().as_bound(1), Inside(jnp.asarray(P, jnp.float32))
    z, clock, factor = bound.corrupted(
        batch, jnp.full(count, 0.3), jax.random.split(jax.random.key(1), count)
    )
    hidden = np.asarray(z == 2)
    np.testing.assert_array_equal(hidden[:, 0], hidden[:, 1])
    np.testing.assert_array_equal(hidden[:, 2], hidden[:, 3])
    share, both = hidden[:, ::2].mean(0), (hidden[:, 0] & hidden[:, 2]).mean()
    level = float(clock[0])
    assert (abs(share - level) < 0.02).all() and abs(both - level**2) < 0.02
    nats = np.asarray(jit(lambda: bound(net, batch, jax.random.key(2)).metrics["loss_B"])())
    assert abs(nats.mean() + math.log(P[5])) < 4.5 * nats.std() / math.sqrt(count)


def test_the_bound_starts_where_the_sampler_does():
    """Its forward process ends with every patch hidden; that of training with a share 1 - eps."""
    process = Masked(tokens=PROCESS.tokens, schedule=LogLinear(eps=0.3))
    count = 2_000
    batch, keys = batch_of(np.tile(X[5], (count, 1))), jax.random.split(jax.random.key(1), count)
    trained = dataclasses.replace(objective(), process=process)
    shares = []
    for one in (trained, trained.as_bound(1)):
        z, clock, _ = one.corrupted(batch, jnp.zeros(count), keys)
        np.testing.assert_allclose(clock, process.clock(jnp.ones(count), 4), rtol=1e-5)
        shares.append(float(np.mean(z == 2)))
    assert abs(shares[0] - 0.7) < 0.05 and shares[1] == 1


@pytest.mark.parametrize("latent", [pytest.param(False, marks=pytest.mark.slow), True])
def test_nothing_leaks(latent):
    """A byte of a masked patch changes no latent, and only logits after it in its patch."""
    model = Blt(width=16, depth=1, heads=2, window=3, buckets=64, patch=5, inner=True,
                latent=latent, tokens=TokenSpace(size=9, mask=8))  # fmt: skip
    net = model.bind(live_params(model))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 8, (1, 20)), jnp.int32)
    z = x.at[:, 5:10].set(8).at[:, 15:].set(8)
    run = jit(lambda told: net.trunk(z, Cond(told=told))[:2])
    features, h = run(x)
    for i in range(20):
        other, h_other = run(x.at[:, i].set((x[:, i] + 3) % 8))
        if latent:
            np.testing.assert_array_equal(h_other, h)
        moved = np.abs(other - features).max((0, 2)) > 0
        after = (np.arange(20) > i) & (np.arange(20) // 5 == i // 5)
        assert not moved[~after].any() and (i % 5 == 4 or moved[i + 1])


def test_one_patch_at_a_time_gives_the_law():
    """With many steps the sampler's law is p; with one, that of independent patches."""
    count = 8_000
    net = Net(Inside(jnp.asarray(P, jnp.float32)), PROCESS)
    draw = Production.of(jax.random.key(5), jnp.arange(count))
    prior = jnp.full((count, 4), 2, jnp.int32), jnp.ones(count)
    blocks = P.reshape(4, 4)
    product = (blocks.sum(1)[:, None] * blocks.sum(0)).reshape(-1)
    for steps, law in ((32, P), (1, product)):
        rule = PatchAncestral(steps=steps, size=2)
        state = jit(lambda rule=rule: sample(net, rule, draw, prior, 1, latent=Latent())[0])()
        found = np.bincount(np.asarray(state.z) @ [8, 4, 2, 1], minlength=16) / count
        slack = 4.5 * np.sqrt(law * (1 - law) / count) + (0.02 if steps > 1 else 0)
        assert (abs(found - law) < slack).all()
        if steps == 1:
            assert (np.asarray(state.calls) == 2).all()


def test_calls_are_those_of_bytes_that_are_drawn():
    """Where the first byte of every patch is given, one call draws the second of all."""
    fixed = jnp.tile(jnp.asarray([True, False]), (8, 2))
    prior = jnp.full((8, 4), 2, jnp.int32), jnp.ones(8)
    run = lambda clamp: sample(
        Net(Inside(jnp.asarray(P, jnp.float32)), PROCESS), PatchAncestral(steps=1, size=2),
        Production.of(jax.random.key(5), jnp.arange(8)), prior, 1, clamp=clamp,
    )[0].calls  # fmt: skip
    for given, calls in ((fixed, 1), (~fixed, 1), (fixed & False, 2)):
        clamp = Clamp(tokens=jnp.zeros((8, 4), jnp.int32), fixed=given)
        assert set(np.asarray(jit(run)(clamp)).tolist()) == {calls}


def test_refusals():
    with pytest.raises(ValueError, match="use process masked"):
        PatchNelbo(process=Uniform(tokens=TokenSpace(size=3)))
    with pytest.raises(ValueError, match="hides no condition"):
        PatchNelbo(process=PROCESS, condition_dropout=0.1)
