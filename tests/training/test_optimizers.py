from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ldd_jax.training.optimizers import AdamW
from ldd_jax.training.state import update_ema


def rates(steps, **settings):
    rate = AdamW(num_steps=100, lr=0.4, **settings).rate()
    return [float(rate(n)) for n in steps]


def test_constant_after_warm_up():
    found = rates([0, 1, 4, 9, 10, 50, 99], warmup_steps=10)
    np.testing.assert_allclose(found, [0.04, 0.08, 0.2, 0.4, 0.4, 0.4, 0.4], rtol=1e-6)


def test_cosine_after_warm_up():
    steps = np.array([10, 32.5, 55, 77.5, 100])
    found = rates(steps, warmup_steps=10, decay="cosine", floor=0.25)
    share = 0.5 * (1 + np.cos(np.pi * np.arange(5) / 4))
    np.testing.assert_allclose(found, 0.4 * (0.25 + 0.75 * share), rtol=1e-6)
    assert rates([5], warmup_steps=10, decay="cosine") == pytest.approx([0.4 * 0.6])


def test_linear_and_no_warm_up():
    found = rates([0, 50, 100, 150], warmup_steps=0, decay="linear", floor=0.5)
    np.testing.assert_allclose(found, [0.4, 0.3, 0.2, 0.2], rtol=1e-6)


def numpy_adamw(w, gradients, *, lr, b1, b2, eps, decay, clip):
    """The published update (arXiv 1711.05101), with clipping of the global norm before it."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for n, g in enumerate(gradients, 1):
        norm = np.sqrt((g**2).sum())
        g = g * min(1, clip / norm) if clip else g
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        hat_m, hat_v = m / (1 - b1**n), v / (1 - b2**n)
        w = w - lr * (hat_m / (np.sqrt(hat_v) + eps) + decay * w)
    return w


@pytest.mark.parametrize("clip", [0.0, 0.7, 1e3])
def test_update_is_clipped_adamw(clip, x64):
    draw = np.random.default_rng(0)
    w, gradients = draw.normal(size=6), draw.normal(size=(5, 6)) * [[1], [9], [0.1], [3], [1]]
    settings = dict(lr=0.05, b1=0.8, b2=0.95, eps=1e-6)
    optimizer = AdamW(weight_decay=0.1, clip_norm=clip, warmup_steps=0, **settings).make()
    params = {"a": jnp.asarray(w[:4]), "b": jnp.asarray(w[4:])}
    state = optimizer.init(params)
    for g in gradients:
        tree = {"a": jnp.asarray(g[:4]), "b": jnp.asarray(g[4:])}
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
    want = numpy_adamw(w, gradients, decay=0.1, clip=clip, **settings)
    np.testing.assert_allclose(np.concatenate([params["a"], params["b"]]), want, rtol=1e-10)


def test_moving_average():
    """d = min(decay, (1 + n) / (10 + n)); the first update moves by 1 - 2/11."""
    draw = np.random.default_rng(1)
    ema = want = draw.normal(size=3)
    for n in range(1, 60):
        p = draw.normal(size=3)
        d = min(0.8, (1 + n) / (10 + n))
        want = d * want + (1 - d) * p
        ema = update_ema(jnp.asarray(ema), jnp.asarray(p), jnp.asarray(n), 0.8)
    np.testing.assert_allclose(ema, want, rtol=1e-5)
    first = update_ema(jnp.zeros(1), jnp.ones(1), jnp.asarray(1), 0.9999)
    assert float(first[0]) == pytest.approx(9 / 11)


def test_moving_average_is_averaged_in_its_own_type():
    found = update_ema({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, jnp.asarray(5, jnp.int32), 0.5)
    assert jax.tree.map(lambda a: str(a.dtype), found) == {"w": "float32"}
