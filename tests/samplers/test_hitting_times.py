"""The times that first_hitting tells the network: those of the process, exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import Trunk
from ldd_jax.processes import Masked
from ldd_jax.samplers import Clamp, FirstHitting, sample
from ldd_jax.samplers.net import Net
from ldd_jax.schedules import Cosine, LogLinear
from tests.lab import jit
from tests.samplers.rules import TOKENS, Toy

ROWS, L = 12_000, 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Clock:
    """A network that carries what it was told: h = sigma at its call."""

    toy: Toy
    timed = True

    @property
    def head(self):
        return self.toy.head

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        told = jnp.broadcast_to(cond.clock.reshape(-1, 1, 1), (*z.shape, 1))
        return Trunk(features=self.toy.embed[z], latent=told)

    def latent(self, batch, length):
        return jnp.zeros((batch, length, 1))


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()], ids=lambda s: s.registered[1])
def test_hitting_times_are_order_statistics(schedule):
    """With n masks left, (noise(t') / noise(t))^n is uniform, and independent of all before.

    arXiv 2409.02908, proposition 4.1: the times at which n masks go are n independent draws with
    distribution function noise(t) / noise(1), the latest first. Half of the rows have one
    position given, so that n is a row's own.
    """
    process = Masked(schedule=schedule, tokens=TOKENS["masked"])
    index = jnp.arange(ROWS)
    fixed = jnp.zeros((ROWS, L), bool).at[: ROWS // 2, 1].set(True)
    clamp = Clamp(
        tokens=jnp.full((ROWS, L), 4, jnp.int32),
        fixed=fixed,
        segment=jnp.ones((ROWS, L), jnp.int32),
    )
    prior = process.prior(example_keys(jax.random.key(1), index), L)
    draw = Production.of(jax.random.key(2), index)
    keep = dict(clamp=clamp, tail="none", record=lambda s: (s.z, s.h[:, 0, 0]))
    run = jit(
        lambda: sample(Net(Clock(Toy.make()), process), FirstHitting(), draw, prior, L, **keep)
    )
    (z, sigma) = map(np.asarray, run()[1])
    level = -np.expm1(-sigma.astype(np.float64)) / float(schedule.noise(jnp.ones(())))
    level = np.concatenate([np.ones((1, ROWS)), level])
    for rows, masks in ((slice(ROWS // 2), L - 1), (slice(ROWS // 2, None), L)):
        left = np.arange(masks, 0, -1)[:, None]
        u = (level[1 : masks + 1, rows] / level[:masks, rows]) ** left
        for each in u:
            assert stats.kstest(each, "uniform").pvalue > 1e-3
        together = np.corrcoef(u) - np.eye(masks)
        assert np.abs(together).max() < 4 / np.sqrt(ROWS / 2)
        # Every free position is as likely as another to be the first.
        free = np.flatnonzero(~np.asarray(fixed)[rows][0])
        first = (z[0, rows][:, free] != TOKENS["masked"].mask).sum(0)
        assert first.sum() == ROWS // 2
        assert stats.chisquare(first).pvalue > 1e-3
