"""`linear` is x w with the gradients of autodiff, formed without two transposed operands."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldd_jax.core.products import dot_general, linear


def pair(shape, features, dtype):
    kx, kw, ky = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(kx, shape, dtype)
    return x, jax.random.normal(kw, (shape[-1], features), dtype), (ky, (*shape[:-1], features))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7, 3), (2, 5, 3), (2, 3, 4, 3)])
@pytest.mark.parametrize("features", [2, 3, 9])
def test_value_and_gradients_are_those_of_autodiff(x64, shape, features):
    x, w, (key, out) = pair(shape, features, jnp.float64)
    dy = jax.random.normal(key, out, jnp.float64)
    (mine, pull), (plain, expected) = jax.vjp(linear, x, w), jax.vjp(jnp.dot, x, w)
    np.testing.assert_allclose(mine, plain, rtol=1e-12)
    for a, b in zip(pull(dy), expected(dy)):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_half_precision_in_float32_sums(strict):
    x, w, (key, out) = pair((4, 6, 8), 5, jnp.bfloat16)
    wide = lambda x, w: linear(x, w, jnp.float32)
    y, pull = jax.vjp(wide, x, w)
    assert y.dtype == jnp.float32
    dx, dw = pull(jax.random.normal(key, out))
    assert dx.dtype == dw.dtype == jnp.bfloat16
    plain = jax.vjp(lambda x, w: jnp.dot(x, w, preferred_element_type=jnp.float32), x, w)[1]
    for a, b in zip((dx, dw), plain(jax.random.normal(key, out))):
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=2e-2)


def test_a_layer_that_multiplies_other_axes_is_refused():
    with pytest.raises(ValueError, match="over other axes"):
        dot_general(jnp.ones((2, 3)), jnp.ones((3, 4)), (((0,), (1,)), ((), ())))


@pytest.mark.parametrize("features", [16, 64])
def test_no_product_meets_two_transposed_operands(features):
    """What made a weight gradient three times as dear as a plain product on a CPU."""
    x, w = jnp.ones((4, 64, 32)), jnp.ones((32, features))
    loss = lambda w, product: jnp.sum(jnp.tanh(product(x, w)) ** 2)
    text = lambda product: jax.jit(jax.grad(loss), static_argnums=1).lower(w, product).compile()
    twice = re.compile(r" dot\(.*lhs_contracting_dims=\{0\}, rhs_contracting_dims=\{1\}")
    assert twice.search(text(jnp.dot).as_text()), "the control no longer shows the dear form"
    assert not twice.search(text(linear).as_text())
