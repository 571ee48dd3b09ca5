"""Walks on a sphere: their law on a circle with the ideal network, prompts, latents, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.draws import Production, example_keys
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT, Linear
from ldd_jax.processes import Masked, Sphere, Uniform, token_space
from ldd_jax.samplers import Ancestral, Clamp, Euler, FirstHitting, Geodesic, Latent, sample
from ldd_jax.samplers.net import Net
from tests.lab import first_params, jit
from tests.processes import circle

ROWS, LENGTH = 2500, 8


def drawn(step, steps, tail, carry=False, latent=Latent()):  # noqa: B008 (frozen)
    process = circle.circle()
    net = Net(circle.Ideal(process, carry), process)
    index = jnp.arange(ROWS)

    def run(steps):
        prior = process.prior(example_keys(jax.random.key(1), index), LENGTH)
        draw = Production.of(jax.random.key(2), index)
        return sample(net, step, draw, prior, steps, tail=tail, latent=latent)[0]

    state = jit(run)(steps)
    return state, np.asarray(process.decode(state.z))


@pytest.mark.parametrize(
    "step, steps, tail", [(Ancestral(), 3, "sample"), (Geodesic(), 192, "none")], ids=["a", "g"]
)
def test_the_law_of_the_ideal_network(step, steps, tail):
    """P(k = 1) = .15: at once where a token is drawn first, in the limit where points walk."""
    state, tokens = drawn(step, steps, tail)
    error = np.sqrt(0.15 * 0.85 / tokens.size)
    assert abs(tokens.mean() - 0.15) < 4 * error, (tokens.mean(), error)
    np.testing.assert_array_equal(state.calls, steps + (tail == "sample"))
    np.testing.assert_allclose(jnp.linalg.norm(state.z, axis=-1), 1, atol=1e-5)


def test_points_on_the_way_have_the_law_of_the_bridge():
    """Angles after two steps of `ancestral`: a mixture of two Gaussians, by mean and variance."""
    process = circle.circle()
    net, index = Net(circle.Ideal(process), process), jnp.arange(ROWS)
    prior = process.prior(example_keys(jax.random.key(1), index), LENGTH)
    draw = Production.of(jax.random.key(3), index)
    run = lambda: sample(
        net, Ancestral(), draw, prior, 4, tail="none", record=lambda s: (s.z, s.clock)
    )
    z, clock = jit(lambda: run()[1])()
    tau = float(process.schedule.alpha(clock[1, 0]))
    angle = np.arctan2(z[1, ..., 1], z[1, ..., 0]).ravel()
    middle = np.array([circle.mean(tau, k) for k in (0, 1)])
    mean = circle.P @ middle
    variance = process.schedule.total * tau * (1 - tau) + circle.P @ middle**2 - mean**2
    assert abs(angle.mean() - mean) < 4 * np.sqrt(variance / angle.size)
    assert angle.var() == pytest.approx(variance, rel=0.03)


def test_the_latent_is_carried_from_call_to_call():
    state, _ = drawn(Geodesic(), 5, "none", carry=True)
    np.testing.assert_array_equal(state.h, 5)
    state, _ = drawn(Geodesic(), 5, "none", carry=True, latent=Latent(reset_every=1))
    np.testing.assert_array_equal(state.h, 1)


@pytest.mark.slow
@pytest.mark.parametrize("base", [0, 3])
def test_prompts_stand_and_a_latent_changes_the_rest(base):
    """With digits the latent has rows of digits, and the same network without it other samples."""
    process = Sphere(base=base)
    process = Sphere(base=base, tokens=token_space(process, 11))
    model = DiT(
        width=16, heads=2, depth=1, cond_width=8, time_conditioning=True, input=Linear(),
        tokens=process.tokens,
    )  # fmt: skip
    leaves, tree = jax.tree.flatten(first_params(model))
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noisy = [a + 0.2 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys)]
    net = Net(model.bind(jax.tree.unflatten(tree, noisy)), process, tile=8)
    index, given = jnp.arange(4), jnp.full((4, 6), 10)
    clamp = Clamp(process.encode(given), jnp.zeros((4, 6), bool).at[:, :2].set(True))
    prior = process.prior(example_keys(jax.random.key(1), index), 6)
    draw = Production.of(jax.random.key(2), index)

    def run(reset):
        how = dict(clamp=clamp, latent=Latent(reset_every=reset), tail="none")
        return sample(net, Geodesic(), draw, prior, 6, **how)[0]

    both = jit(lambda: [run(0), run(1)])()
    for state in both:
        assert not state.lawless.any()
        assert (process.decode(state.z)[:, :2] == 10).all()
        assert (process.decode(state.z) < 11).all()
    assert both[0].h.shape == ((4, 6, 16) if base == 0 else (4, 6, 3, 16))
    assert jnp.abs(both[0].z - both[1].z).max() > 1e-3


SPHERE = Sphere(tokens=TokenSpace(size=5, mask=4))


@pytest.mark.parametrize(
    "step, process, why",
    [
        (Euler(), SPHERE, "process sphere are points .use geodesic or ancestral"),
        (FirstHitting(), SPHERE, "process sphere are points"),
        (Geodesic(), Masked(tokens=TokenSpace(size=5, mask=4)), "moves points, but .* are tokens"),
        (Geodesic(), Uniform(tokens=TokenSpace(size=5)), "moves points"),
    ],
)
def test_rules_of_the_other_kind_are_refused(step, process, why):
    with pytest.raises(ValueError, match=why) as caught:
        step.check(process, latent=False, timed=True)
    assert "\n" not in str(caught.value)
    Geodesic().check(SPHERE, latent=True, timed=True)
    with pytest.raises(ValueError, match="points have no probabilities"):
        Ancestral().way(SPHERE)
