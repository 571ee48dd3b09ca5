"""The unit sphere in the coordinates of the space around it: rows [..., d] of length 1."""

from __future__ import annotations

import jax.numpy as jnp

from ldd_jax.core.types import Array

LOWEST = 1e-6 - 1  # the cosine of the antipode, where no way is the shortest
SERIES = (1.0, 2 / 3, 8 / 15, 16 / 35, 128 / 315, 256 / 693)


def dot(x: Array, y: Array) -> Array:
    """<x, y>, [..., 1]."""
    return jnp.sum(x * y, axis=-1, keepdims=True)


def tangent(x: Array, v: Array) -> Array:
    """The part of v that is orthogonal to the point x, [..., d]."""
    return v - dot(x, v) * x


def stretch(cosine: Array) -> Array:
    """Angle / sin angle, angle = arccos(cosine): 1 at the point itself, without bound opposite it.

    A series of y = (1 - cosine) / 2 near 1, where the quotient is 0 / 0.
    """
    c = jnp.maximum(cosine, LOWEST)
    y = jnp.maximum((1 - c) / 2, 0)
    near = jnp.zeros_like(y)
    for coefficient in reversed(SERIES):
        near = near * y + coefficient
    far = jnp.minimum(c, 0.99)
    return jnp.where(c > 0.99, near, jnp.arccos(far) / jnp.sqrt((1 - far) * (1 + far)))


def log_map(x: Array, y: Array) -> Array:
    """The tangent vector at x that leads to y: theta / sin theta (y - cos theta x), [..., d]."""
    return stretch(dot(x, y)) * tangent(x, y)


def exp_map(x: Array, v: Array) -> Array:
    """The point at distance |v| from x along the tangent vector v: cos|v| x + sin|v| v / |v|."""
    length = jnp.sqrt(dot(v, v))
    point = jnp.cos(length) * x + jnp.sinc(length / jnp.pi) * v
    return point / jnp.sqrt(dot(point, point))


def towards_vertices(x: Array, weight: Array) -> Array:
    """sum_k weight_k log_x(e_k) over the unit vectors e_k: tangent(x, weight theta / sin theta).

    O(d) a row: the cosines to all of them are the coordinates of x.

    Args:
      x: points [..., d].
      weight: [..., d].
    """
    return tangent(x, weight * stretch(x))
