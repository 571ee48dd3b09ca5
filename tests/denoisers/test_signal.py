"""The network with a signal: two ways in, a second head, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Attend, Cond, TokenSpace
from ldd_jax.denoisers import DiT, Hollow, SignalDiT
from tests.lab import first_params, jit, live_params

TOKENS = TokenSpace(size=5, mask=4)
SMALL = dict(tokens=TOKENS, width=16, heads=2, depth=1, cond_width=8)
TOKEN = jnp.asarray([[0, 4, 2, 1], [4, 4, 3, 0]])
POINTS = jax.random.normal(jax.random.key(0), (2, 4, 3))


def both_ways(model, params):
    """Features of a state that holds a signal at time 0, and of tokens that are told it."""
    denoiser = model.bind(params)
    clock = {"text": jnp.full(2, 0.7), "signal": jnp.zeros(2)}
    h = denoiser.latent(2, 4)
    tree = denoiser.trunk({"text": TOKEN, "signal": POINTS}, Cond(clock=clock), h)
    return tree, denoiser.trunk(TOKEN, Cond(clock=jnp.full(2, 0.3), signal=POINTS), h)


@pytest.mark.parametrize("latent", [False, True])
def test_a_given_signal_is_one_at_time_0(latent):
    model = SignalDiT(channels=3, latent=latent, **SMALL)
    params = live_params(model)
    one, other = jit(lambda p: both_ways(model, p))(params)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert (one.latent is not None) == latent


def test_what_the_features_depend_on():
    """On tokens, points and the signal's time; not on that of the tokens."""
    model = SignalDiT(channels=3, latent=False, **SMALL)
    denoiser = model.bind(live_params(model))

    @jit
    def out(token, points, text, signal):
        clock = {"text": jnp.full(2, text), "signal": jnp.full(2, signal)}
        trunk = denoiser.trunk({"text": token, "signal": points}, Cond(clock=clock))
        return denoiser.heads["signal"](trunk.features.reshape(8, -1))

    base = out(TOKEN, POINTS, 0.5, 0.5)
    np.testing.assert_array_equal(out(TOKEN, POINTS, 0.9, 0.5), base)
    for other in (
        out(TOKEN.at[0, 0].set(1), POINTS, 0.5, 0.5),
        out(TOKEN, POINTS + 0.1, 0.5, 0.5),
        out(TOKEN, POINTS, 0.5, 0.6),
    ):
        assert np.abs(other - base).max() > 1e-3
    assert base.shape == (8, 3)


@pytest.mark.parametrize("latent, adaln", [(True, True), (False, False)])
def test_every_parameter_has_its_axes(latent, adaln):
    model = SignalDiT(channels=3, latent=latent, adaln=adaln, **SMALL)
    params = first_params(model)
    is_axes = lambda a: isinstance(a, tuple)
    jax.tree.map(
        lambda axes, leaf: np.testing.assert_equal(len(axes), leaf.ndim),
        model.axes(),
        params,
        is_leaf=is_axes,
    )
    assert not np.any(params["signal"]["kernel"])
    more = model.operations(4)["trunk"] - DiT(**SMALL).operations(4)["trunk"]
    assert more == 2 * 16 * (4 + 3)


@pytest.mark.parametrize(
    "z, cond, words",
    [
        (TOKEN, Cond(), "told a signal beside its tokens"),
        (TOKEN, Cond(signal=POINTS[..., :2]), "a signal of 2 channels; the network has 3"),
        ({"text": TOKEN, "signal": POINTS}, Cond(), "cond.clock tells its time"),
        ({"text": TOKEN, "signal": POINTS}, Cond(signal=POINTS), "no other is"),
        (TOKEN, Cond(signal=POINTS, attend=Attend("near")), "attend kind"),
    ],
)
def test_refusals(z, cond, words):
    model = SignalDiT(channels=3, latent=False, **SMALL)
    with pytest.raises(ValueError, match=words):
        model.bind({}).trunk(z, cond)


@pytest.mark.parametrize("model", [DiT, Hollow])
def test_other_networks_take_no_signal(model):
    with pytest.raises(ValueError, match="takes no signal"):
        model(**SMALL, latent=False).bind({}).trunk(TOKEN, Cond(signal=POINTS))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"channels": 0}, "channels"),
        ({"time_conditioning": True}, "told always"),
        ({"causal": True}, "causal"),
    ],
)
def test_wrong_fields(fields, words):
    with pytest.raises(ValueError, match=words):
        SignalDiT(**{"channels": 3, **SMALL, **fields})
