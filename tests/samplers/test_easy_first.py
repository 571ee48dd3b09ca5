"""Easy-first decoding against the published loop in NumPy, and its counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from ldd_jax.core.draws import Production
from ldd_jax.core.types import Cond, TokenSpace, Trunk
from ldd_jax.processes import MaskedMean, MaskedScore
from ldd_jax.samplers import Clamp, CosineGrid, EasyFirst, LinearGrid, sample
from ldd_jax.samplers.loop import start
from ldd_jax.samplers.net import Net
from tests.lab import jit
from tests.samplers.rules import MASK, PROCESSES, Toy

B, L = 5, 9
PROCESS = PROCESSES["masked"]


@struct.dataclass
class Placed(Toy):
    """The toy network with places told apart, so that no two are equally sure."""

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """As the toy's."""
        trunk = super().trunk(z, cond, h)
        place = jnp.sin(3.0 * jnp.arange(z.shape[1]))[:, None] * jnp.asarray([1.0, -0.5, 0.3, 0.8])
        return trunk._replace(features=trunk.features + place)


NET = Net(Placed.make(), PROCESS)
DRAW = Production.of(jax.random.key(3), jnp.arange(B))
PRIOR = jnp.full((B, L), MASK, jnp.int32), jnp.ones(B)
FIXED = jnp.arange(L) < jnp.arange(B)[:, None]
CLAMP = Clamp(jnp.full((B, L), 4, jnp.int32), FIXED)


def prediction(z, h):
    """Log p over the symbols, whatever stands at a position, and the next latent."""
    trunk = NET.denoiser.trunk(jnp.asarray(z), Cond(), jnp.asarray(h))
    logits = np.array(NET.denoiser.head(trunk.features), np.float64)
    logits[..., MASK] = -np.inf
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return logp, np.asarray(trunk.latent)


def reference(steps, rate, revise):
    """L.4 without noise: x0 = argmax, the k least sure masked again, k = floor(n * rate)."""
    z, h = np.array(jnp.where(FIXED, CLAMP.tokens, PRIOR[0])), np.zeros((B, L, 1), np.float32)
    free = ~np.asarray(FIXED)
    path = []
    for t in range(steps - 1, -1, -1):
        logp, h = prediction(z, h)
        open_ = free if revise else free & (z == MASK)
        x0 = np.where(open_, logp.argmax(-1), z)
        sure = np.where(open_, logp.max(-1), np.inf)
        for b in range(B):
            k = int(free[b].sum() * rate(t, steps)) if t else 0
            x0[b, np.argsort(sure[b], kind="stable")[:k]] = MASK
        z = x0
        path.append(z)
    return np.stack(path)


@pytest.mark.slow
@pytest.mark.parametrize("revise", [True, False])
@pytest.mark.parametrize(
    "grid, rate",
    [
        (LinearGrid(), lambda t, n: t / n),
        (CosineGrid(), lambda t, n: np.cos((n - t) / n * np.pi / 2)),
    ],
)
def test_it_is_the_published_loop(grid, rate, revise):
    step = EasyFirst(noise=0.0, revise=revise)
    for steps in (1, 2, 3, 4, 8, 20):
        run = jit(
            lambda n=steps: sample(
                NET, step, DRAW, PRIOR, n, clamp=CLAMP, grid=grid, record=lambda s: s.z
            )
        )
        state, path = run()
        expected = reference(steps, rate, revise)
        np.testing.assert_array_equal(path, expected)
        np.testing.assert_array_equal(state.z, expected[-1])
        np.testing.assert_array_equal(state.calls, steps)


def test_revised_positions_change_and_stayers_do_not():
    """With `revise` this network takes tokens back; without it none is."""
    for revise in (True, False):
        run = jit(
            lambda r=revise: sample(NET, EasyFirst(revise=r), DRAW, PRIOR, 6, record=lambda s: s.z)[
                1
            ]
        )
        path = np.asarray(run())
        changed = (path[:-1] != MASK) & (path[1:] != path[:-1])
        assert changed.any() == revise


def test_noise_moves_the_places_and_not_their_number():
    counts = []
    for noise in (0.0, 0.5, 50.0):
        step = EasyFirst(noise=noise)
        path = jit(
            lambda s=step: sample(NET, s, DRAW, PRIOR, 8, clamp=CLAMP, record=lambda s: s.z)[1]
        )()
        counts.append((np.asarray(path) == MASK).sum(-1))
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])
    free = np.asarray(~FIXED).sum(1)
    expected = [[f * t // 8 for f in free] for t in range(7, -1, -1)]
    np.testing.assert_array_equal(counts[0], expected)


def test_refusals():
    with pytest.raises(ValueError, match="noise"):
        EasyFirst(noise=-1.0)


@struct.dataclass
class Fixed:
    """The same logits whatever it sees; the head does nothing."""

    logits: jax.Array

    timed = False

    @property
    def head(self):
        """Nothing to project."""
        return lambda features: features

    def trunk(self, z, cond, h=None, *, key=None, cache=None):
        """Logits [B, L, V]."""
        return Trunk(jnp.broadcast_to(self.logits, (len(z), *self.logits.shape)), None)

    def latent(self, batch, length):
        """None."""


@pytest.mark.parametrize("kind", [MaskedScore, MaskedMean])
def test_free_scores_are_ranked_as_probabilities(kind):
    """Row 0 is 90 % sure and row 1 36 %; its c is larger, as it sums to 3.3 (or to less than 1)."""
    tokens = TokenSpace(size=4, mask=3)
    c = np.array([[0.90, 0.05, 0.05, 1e-9], [1.2, 1.1, 1.0, 1e-9]])
    if kind is MaskedMean:  # x_theta with half of its mass on the mask where it is surer
        c = np.array([[0.18, 0.01, 0.01, 0.8], [0.36, 0.33, 0.31, 1e-9]])
    net = Net(Fixed(jnp.asarray(np.log(c), jnp.float32)), kind(tokens=tokens))
    state = start(net, (jnp.full((1, 2), 3, jnp.int32), jnp.ones(1)), None)
    step = EasyFirst(noise=0.0)
    draw = Production.of(jax.random.key(1), jnp.arange(1))
    found = step(net, state, jnp.full(1, 0.5), draw, None)
    assert found.z.tolist() == [[0, 3]]
