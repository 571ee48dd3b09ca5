"""Pass 1 gets no gradient: on a network of one line, exactly and fast."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.types import Batch, Cond, TokenSpace, Trunk
from ldd_jax.objectives import BatchGate, ExampleGate, FractionGate, Nelbo, PseudoContext
from ldd_jax.processes import Masked
from tests.lab import jit

B, L, V = 4, 3, 4
Z = jnp.asarray(np.random.default_rng(0).integers(0, V, (B, L)), jnp.int32)
W = jnp.asarray([0.7, -0.4])


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Line:
    """h' = w_0 (z + 1) + w_1 h; logits are h' times 0, 1, 2, .."""

    w: jax.Array
    timed = False

    def latent(self, batch, length):
        return jnp.zeros((batch, length, 1))

    def trunk(self, z, cond, h=None, *, key=None):
        h = self.latent(*z.shape) if h is None else h
        out = self.w[0] * (z + 1)[..., None] + self.w[1] * h
        return Trunk(features=out, latent=out)

    @property
    def head(self):
        return lambda features: features * jnp.arange(V)


@pytest.mark.parametrize(
    "context",
    [
        PseudoContext(p=1.0),
        PseudoContext(p=1.0, passes=3),
        PseudoContext(p=0.5, gate=BatchGate()),
        PseudoContext(p=0.5, gate=ExampleGate()),
        PseudoContext(p=0.5, gate=FractionGate(group=2)),
    ],
    ids=str,
)
def test_no_gradient_leaves_the_context(context):
    def h(w, context):
        return context(Line(w), Z, Cond(), None, jax.random.key(1), jnp.arange(B))

    both = dataclasses.replace(context, gradient=True)
    assert np.abs(h(W, context)).max() > 0  # the draws of this key let somebody take part
    np.testing.assert_array_equal(h(W, context), h(W, both))
    slope = lambda context: jax.jacrev(h)(W, context)
    np.testing.assert_array_equal(slope(context), 0)
    assert np.abs(slope(both)).max() > 0.1


def test_the_loss_sees_the_context_as_a_constant():
    """Gradient by hand: d(w_0 x + w_1 h)/dw = (x, h), with h = w_0 x held."""
    process = Masked(tokens=TokenSpace(size=V, mask=V - 1))
    z0 = jnp.asarray(np.random.default_rng(1).integers(0, V - 1, (B, L)), jnp.int32)
    ones = jnp.ones((B, L))
    batch = Batch(z0, ones < 0, ones, Cond(), jnp.arange(B), B, jnp.asarray(float(B * L)))
    z, clock = jnp.full((B, L), V - 1), jnp.linspace(0.2, 0.9, B)

    def loss(w, context):
        objective = Nelbo(process=process, context=context)
        given = (batch, z, clock, jnp.ones(B), jax.random.key(0), None)
        return objective.score(Line(w), *given).total

    stopped = jit(jax.grad(lambda w: loss(w, PseudoContext(p=1.0))))(W)
    x, h = V, float(W[0]) * V
    logits = (float(W[0]) * x + float(W[1]) * h) * np.arange(V - 1)
    p = np.exp(logits) / np.exp(logits).sum()
    each = np.asarray(1 / clock)[:, None] * (p @ np.arange(V - 1) - np.asarray(z0))
    np.testing.assert_allclose(stopped, each.mean() * np.array([x, h]), rtol=1e-5)
    full = jit(jax.grad(lambda w: loss(w, PseudoContext(p=1.0, gradient=True))))(W)
    np.testing.assert_allclose(full[0] - stopped[0], each.mean() * float(W[1]) * x, rtol=1e-4)
