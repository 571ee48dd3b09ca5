"""Rotary angles that go round a periodic lattice: a network that knows no border and no corner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond, TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.denoisers.rotary import rotary
from tests.lab import jit, live_params

SIDE = 4


def features(torus):
    model = DiT(
        tokens=TokenSpace(size=3, mask=2), width=16, depth=2, heads=2, adaln=False, torus=torus
    )
    denoiser = model.bind(live_params(model))
    return jit(lambda z: denoiser.trunk(z, Cond()).features.reshape(-1, SIDE, SIDE, 16))


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (3, 2)])
def test_what_is_shifted_round_the_border_comes_out_shifted(shift):
    z = jax.random.randint(jax.random.key(0), (3, SIDE, SIDE), 0, 3)
    moved = jnp.roll(z, shift, (1, 2))
    flat = lambda z: z.reshape(3, -1)
    out, other = (features(SIDE)(flat(a)) for a in (z, moved))
    np.testing.assert_allclose(jnp.roll(out, shift, (1, 2)), other, atol=2e-5)
    assert np.abs(out - other).max() > 0.1
    line, line_moved = (features(0)(flat(a)) for a in (z, moved))
    assert np.abs(jnp.roll(line, shift, (1, 2)) - line_moved).max() > 1e-2


def test_scores_tell_every_displacement_from_every_other():
    """The angles of a head of eight channels: one pair for each wave, in either direction."""
    one = jnp.ones((1, SIDE**2, 1, 8))
    turned = rotary(one, jnp.arange(SIDE**2), torus=SIDE)[0, :, 0]
    score = np.asarray(turned @ turned.T)
    np.testing.assert_allclose(score, score.T, atol=1e-5)
    by_place = {}
    for i in range(SIDE**2):
        for j in range(SIDE**2):
            apart = ((i // SIDE - j // SIDE) % SIDE, (i % SIDE - j % SIDE) % SIDE)
            by_place.setdefault(apart, []).append(turned[i] * turned[j])
    assert len(by_place) == SIDE**2
    assert np.argmax(score[5]) == 5  # itself


@pytest.mark.parametrize("width, torus", [(12, 4), (16, -1)])
def test_what_makes_no_torus(width, torus):
    with pytest.raises(ValueError, match=f"torus is {torus}"):
        DiT(tokens=TokenSpace(size=3, mask=2), width=width, heads=2, depth=1, torus=torus)
