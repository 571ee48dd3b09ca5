"""Logical axes of activations: named here, placed on a mesh by whoever jits at the edge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import jax

from ldd_jax.core.types import Array

Axes = tuple[str | None, ...]


class Layout(Protocol):
    """How logical axes lie on a mesh."""

    def constrain(self, x: Array, axes: Axes) -> Array:
        """`x` laid by these axes."""
        ...

    def split(self, fn: Callable, inputs: tuple[Axes, ...], output: Axes) -> Callable:
        """`fn` run by every device on its own share.

        Args:
          fn: function of arrays; sees one device's share of each.
          inputs: logical axes of each argument, a name or None for every dimension.
          output: those of what it returns.

        Returns:
          A function of the whole arrays.
        """
        ...

    def pieces(self, axis: str) -> int:
        """Number of pieces that a logical axis is cut into."""
        ...


_LAYOUT: ContextVar[Layout | None] = ContextVar("layout", default=None)


def constrain(x: Array, *axes: str | None) -> Array:
    """`x` with its dimensions laid on the mesh by name; unchanged outside `placed`."""
    layout = _LAYOUT.get()
    return x if layout is None else layout.constrain(x, axes)


def split(fn: Callable, inputs: tuple[Axes, ...], output: Axes) -> Callable:
    """`fn` on each device's share of its inputs (kernels cannot be partitioned by the compiler).

    `fn`, `inputs` and `output` are those of `Layout.split`; without a layout `fn` is returned as it
    is.
    """
    layout = _LAYOUT.get()
    return fn if layout is None else layout.split(fn, inputs, output)


def pieces(axis: str) -> int:
    """Number of pieces that a logical axis is cut into; 1 outside `placed`."""
    layout = _LAYOUT.get()
    return 1 if layout is None else layout.pieces(axis)


def gathered(tree: Any) -> Any:
    """Weights whole on every data shard, their last axis (the vocabulary) still by its rule."""
    if _LAYOUT.get() is None:
        return tree
    return jax.tree.map(lambda a: constrain(a, *(None,) * (a.ndim - 1), "vocabulary"), tree)


def scattered(tree: Any, until: Any) -> tuple[Any, Any]:
    """Gradients of such weights, cut by width as these are kept, and `until`, which waits for it.

    Otherwise the compiler leaves their sum over the data shards to the end of a step, and every
    device holds its whole summand as long. Unchanged where no width is cut.

    Args:
      tree: gradients of what was `gathered`, summed over the data shards.
      until: arrays with which the step goes on.
    """
    if pieces("width") == 1:
        return tree, until
    names = lambda a: ((None,) * a.ndim + ("width", "vocabulary"))[-a.ndim :]
    cut = jax.tree.map(lambda a: constrain(a, *names(a)), tree)
    return jax.lax.optimization_barrier((cut, until))


@contextlib.contextmanager
def placed(layout: Layout) -> Iterator[None]:
    """Use `layout` for every `constrain` and `split` while a function is traced."""
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)
