"""The two-pass NELBO bounds the two-pass sampler's likelihood, not the carried one's."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Cond
from ldd_jax.denoisers import DiT
from ldd_jax.processes import Masked
from ldd_jax.samplers import LinearGrid
from ldd_jax.schedules import LogLinear
from tests.lab import Law, index, jit, live_params, transition
from tests.processes.test_bounds import exact_masked_nelbo

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.slow
def test_two_pass_bound():
    law = Law(1, 3, 3)
    process = Masked(schedule=LogLinear(eps=0.0), tokens=law.tokens)
    model = DiT(tokens=law.tokens, width=8, depth=1, heads=2, cond_width=4)
    params = live_params(model, scale=0.25)
    params["trunk"]["latent_norm"]["norm"]["scale"] += 2.0
    params["head"]["kernel"] *= 2.0
    denoiser = model.bind(params)
    n = len(law.z)

    @jit
    def one_pass(z, h):
        trunk = denoiser.trunk(z, Cond(), h)
        rows = denoiser.head(trunk.features.reshape(-1, 8)).astype(jnp.float64)
        logp = process.read(rows, z.reshape(-1), jnp.ones(z.size))
        return logp.reshape(*z.shape, -1), trunk.latent

    z = jnp.asarray(law.z)
    first, h = one_pass(z, jnp.zeros((n, 3, 8), jnp.float32))
    second, _ = one_pass(z, h)
    assert np.abs(np.exp(first) - np.exp(second)).max() > 1e-2
    second = np.asarray(second)
    nelbo = exact_masked_nelbo(law, second)

    # Without time conditioning, infinitely many two-pass steps reveal in a random order: exact law.
    start = int(index(np.full(3, 3), 4))
    exact = np.zeros(len(law.x))
    for order in itertools.permutations(range(3)):
        revealed, p = np.full(law.x.shape, 3), np.ones(len(law.x))
        for place in order:
            row = second[index(revealed, 4), place]
            p = p * np.exp(np.take_along_axis(row, law.x[:, place, None], 1)[:, 0])
            revealed[:, place] = law.x[:, place]
        exact += p / 6
    assert abs(exact.sum() - 1) < 1e-9
    gap = nelbo + np.log(exact)
    assert np.all(gap > -1e-9) and gap.max() > 1e-3

    # The production steps tend to it.
    clean = (law.z != 3).all(1)
    errors = []
    for steps in (20, 40):
        grid = LinearGrid()
        times = [float(grid(jnp.asarray(float(i)), steps)) for i in range(steps + 1)]
        p = np.eye(n)[start]
        for t, s in zip(times, [*times[1:], None]):
            p = p @ transition(law, process, second, t, s)
        errors.append(np.abs(p[clean] - exact).max())
    assert errors[1] < 0.6 * errors[0] and errors[1] < 0.01, errors

    # The sampler that carries h: one step, then the removal, over both states and latents.
    two = np.eye(n)[start] @ transition(law, process, second, 1.0, 0.5)
    two = (two @ transition(law, process, second, 0.5, None))[clean]
    zero = jnp.zeros((1, 3, 8), jnp.float32)
    carried_logp, carried_h = one_pass(z[start][None], zero)
    table = np.tile(np.asarray(carried_logp), (n, 1, 1))
    middle = transition(law, process, table, 1.0, 0.5)[start]
    last, _ = one_pass(z, jnp.tile(carried_h, (n, 1, 1)))
    carried = (middle @ transition(law, process, np.asarray(last), 0.5, None))[clean]
    np.testing.assert_allclose([two.sum(), carried.sum()], 1, rtol=1e-9)
    assert np.abs(two - carried).max() > 1e-3
