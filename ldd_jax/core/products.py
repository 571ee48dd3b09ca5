"""Products with a parameter, and the order in which their gradients are formed."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax

from ldd_jax.core.types import Array


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def linear(x: Array, w: Array, dtype: Any = None) -> Array:
    """Y = x w, with dW = x^T dY formed in that order.

    Autodiff forms (dY^T x)^T instead. The value is the same, but a CPU then meets two transposed
    operands, which costs three times a plain product.

    Args:
      x: [..., D].
      w: [D, F], or [D, 3, heads, K]: F of several axes, still one product.
      dtype: in which sums are kept and y is returned; None = that of the operands.

    Returns:
      [..., F].
    """
    over = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(x, w, over, preferred_element_type=dtype)


def _forward(x, w, dtype):
    return linear(x, w, dtype), (x, w)


def _backward(dtype, kept, dy):
    x, w = kept
    outputs = w.ndim - 1
    over = tuple(range(dy.ndim - outputs, dy.ndim)), tuple(range(1, w.ndim))
    dx = jax.lax.dot_general(dy, w, (over, ((), ())))
    return dx.astype(x.dtype), weight_gradient(x, dy).astype(w.dtype)


def weight_gradient(x: Array, dy: Array) -> Array:
    """Sum over all rows of x^T dY, [D, F]; F may be several axes.

    A CPU transposes the first operand before it multiplies, so the narrower one stands there.
    """
    rows = tuple(range(x.ndim - 1))
    over = lambda a, b: jax.lax.dot_general(a, b, ((rows, rows), ((), ())))
    if x.shape[-1] <= math.prod(dy.shape[len(rows) :]) or dy.ndim > x.ndim:
        return over(x, dy)
    return jax.lax.optimization_barrier(over(dy, x)).T


linear.defvjp(_forward, _backward)


def dot_general(lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
    """`linear` in the place of `jax.lax.dot_general`: [..., D] times [D, F].

    Args:
      lhs: [..., D].
      rhs: [D, F].
      dimension_numbers: must contract the last axis of `lhs` with the first of `rhs`.
      precision: must be None.
      preferred_element_type: dtype of the sums and of the result, see `linear`.

    Raises:
      ValueError: for a product over other axes, or with a precision.
    """
    expected = ((lhs.ndim - 1,), (0,)), ((), ())
    if dimension_numbers != expected or precision is not None:
        raise ValueError(
            f"a product of {lhs.shape} and {rhs.shape} over other axes than {expected}"
        )
    return linear(lhs, rhs, preferred_element_type)
