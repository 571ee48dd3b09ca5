"""Logical axes of activations: named here, placed on a mesh by whoever jits at the edge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

from ldd_jax.core.types import Array

Place = Callable[[Array, tuple[str | None, ...]], Array]
_PLACE: ContextVar[Place | None] = ContextVar("place", default=None)


def constrain(x: Array, *axes: str | None) -> Array:
    """`x` with its dimensions laid on the mesh by name; unchanged outside `placed`."""
    place = _PLACE.get()
    return x if place is None else place(x, axes)


def gathered(tree: Any) -> Any:
    """Weights whole on every data shard, their last axis (the vocabulary) still by its rule."""
    if _PLACE.get() is None:
        return tree
    return jax.tree.map(lambda a: constrain(a, *(None,) * (a.ndim - 1), "vocabulary"), tree)


@contextlib.contextmanager
def placed(place: Place) -> Iterator[None]:
    """Use `place` for every `constrain` while a function is traced."""
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)
