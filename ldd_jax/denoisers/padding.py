"""A vocabulary in a size that a mesh divides: further rows of zeros, which nobody sees.

The token table and the projection to the vocabulary are rounded up (Megatron-LM, arXiv 1909.08053,
section 5). No token has a further row and no logit of one leaves the projection, so their gradient
is 0 to the bit and they stay zero. What leaves the library is without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array, TokenSpace

VOCABULARY = "vocabulary"  # the logical axis


def rounded(tokens: TokenSpace, multiple: int) -> int:
    """Rows of the token table.

    Args:
      tokens: states of the process.
      multiple: that it is one of.
    """
    return -(-tokens.size // multiple) * multiple


def widened(a: Array, size: int, axis: int) -> Array:
    """`a` with zeros behind, up to `size` along an axis."""
    pads = [(0, size - n if i == axis % a.ndim else 0) for i, n in enumerate(a.shape)]
    return jnp.pad(a, pads)


def first(init: Callable, size: int) -> Callable:
    """An initialiser of tables [V, D] whose first rows are those of a table [size, D].

    Args:
      init: of the table without the further rows.
      size: states.
    """

    def make(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return widened(init(key, (size, *shape[1:]), dtype), shape[0], 0)

    return make


def without(params: Any, axes: Any, size: int) -> Any:
    """Parameters without the further rows; those that have none are as they are.

    Args:
      params: of a network, arrays.
      axes: logical axes of each, of `Model.axes`.
      size: states.
    """
    at = lambda names: tuple(slice(size if n == VOCABULARY else None) for n in names)
    return _map(lambda names, a: a[at(names)] if VOCABULARY in names else a, axes, params)


def within(params: Any, axes: Any, shapes: Any) -> Any:
    """Parameters with the further rows of a network; inverse of `without`.

    Args:
      params: without them, arrays.
      axes: as in `without`.
      shapes: of the network's own parameters.
    """

    def one(names: tuple[str | None, ...], a: Any, like: Any) -> Any:
        if a.shape == like.shape:
            return a
        axis = names.index(VOCABULARY)
        return widened(a, like.shape[axis], axis)

    return _map(one, axes, params, shapes)


def plain_shapes(model: Any) -> Any:
    """Shapes of a network's parameters without the further rows."""
    make = lambda key: without(model.init(key), model.axes(), model.tokens.size)
    return jax.eval_shape(make, jax.random.key(0))


def _map(fn: Callable, axes: Any, *trees: Any) -> Any:
    return jax.tree.map(fn, axes, *trees, is_leaf=lambda a: isinstance(a, tuple))
