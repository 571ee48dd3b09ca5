"""A network that knows the solution decodes to it, for every rule and every number of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production
from ldd_jax.core.types import TokenSpace, Trunk
from ldd_jax.data import ProblemData
from ldd_jax.inference.solve import read
from ldd_jax.processes import LeftToRight, Masked
from ldd_jax.samplers import Clamp, NextToken, sample
from ldd_jax.samplers.net import Net
from ldd_jax.tasks import Countdown
from tests.lab import jit
from tests.samplers.rules import RULES, runs

TASK = Countdown(numbers=3, largest=9)
DATA = ProblemData(task=TASK, train_count=6, validation_count=1, length=30)
CORPUS = DATA.load()
ROWS = [CORPUS.train[i] for i in range(6)]
LABEL = jnp.asarray(np.stack([r["tokens"] for r in ROWS]))
KEEP = jnp.asarray(np.stack([r["keep"] for r in ROWS]))
SIZE = CORPUS.tokenizer.size
TOKENS = TokenSpace(size=SIZE + 1, mask=SIZE)
CLAMP = Clamp(jnp.where(KEEP, LABEL, 0), KEEP)


@struct.dataclass
class Sure:
    """Features are tokens; nothing else is possible."""

    def __call__(self, features_ND):
        """[N, V]."""
        return jnp.where(jnp.arange(SIZE + 1) == features_ND, 0.0, -1e4)


@struct.dataclass
class Oracle:
    """Predicts the label wherever it is asked."""

    label: jax.Array
    timed = False
    head = Sure()

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """The label's tokens as features."""
        if cache is not None:
            one = jax.lax.dynamic_slice_in_dim(self.label, cache, 1, axis=1)
            return Trunk(features=one[..., None], latent=None, cache=cache + 1)
        return Trunk(features=self.label[..., None], latent=None)

    def latent(self, batch, length):
        """None is carried."""

    def cache(self, batch, length):
        """The position."""
        return jnp.zeros((), jnp.int32)


def solved(net, step):
    draw = Production.of(jax.random.key(0), jnp.arange(6))
    prior = net.process.prior(draw.keys, DATA.length)
    run = jit(lambda n: sample(net, step, draw, prior, n, clamp=CLAMP)[0].z)
    for steps in (1, 2, 5, 16, 64):
        z = np.asarray(run(steps))
        np.testing.assert_array_equal(z, LABEL)
    for row, keep in zip(z, np.asarray(KEEP), strict=True):
        problem = CORPUS.tokenizer.decode(row[keep])[:-1]
        assert TASK.strict(problem, read(row[~keep], CORPUS.tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [n for n, s in RULES.items() if runs(s, Masked(tokens=TOKENS), latent=False, timed=False)],
)
def test_masked(rule):
    solved(Net(Oracle(LABEL), Masked(tokens=TOKENS)), RULES[rule])


def test_left_to_right():
    solved(Net(Oracle(LABEL), LeftToRight(tokens=TOKENS)), NextToken())
