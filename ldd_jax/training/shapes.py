"""Checkpoints whose arrays have other shapes than the network's now: the same numbers, laid anew.

Two differences are known, all others are refused: a vocabulary with another number of rows of zeros
behind it, and the last three axes as one, as queries, keys and values were before their heads were
an axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from ldd_jax.core.types import Array


def stored(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays in one item of a checkpoint, by dotted path."""
    found: Any = ocp.StandardCheckpointHandler().metadata(folder)
    return {n: tuple(a.shape) for n, a in named(getattr(found, "tree", found)).items()}


def rows_of(meta: Mapping[str, Any], states: int) -> int:
    """Rows of the vocabulary when a checkpoint was written, zeros included.

    Args:
      meta: its record, which holds the run's config.
      states: without them.
    """
    model: Any = meta
    for name in ("config", "model"):
        model = model.get(name) if isinstance(model, Mapping) else None
    multiple = model.get("vocab_multiple", 1) if isinstance(model, Mapping) else 1
    good = type(multiple) is int and multiple > 0
    return -(-states // multiple) * multiple if good else states


def named(tree: Any) -> dict[str, Any]:
    """Leaves by their dotted path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def as_stored(like: Any, shapes: dict[str, tuple[int, ...]], states: int, rows: int) -> Any:
    """Abstract arrays in the shapes of the checkpoint, where those may become what is wanted.

    Args:
      like: abstract arrays that are wanted, with their shardings.
      shapes: of `stored`.
      states: of the vocabulary; 0 = it has none.
      rows: of the vocabulary when the checkpoint was written, zeros included.
    """

    def one(path: Any, want: Any) -> Any:
        have = shapes.get(jax.tree_util.keystr(path, simple=True, separator="."), want.shape)
        known = have == _joined(want.shape) or _longer(have, want.shape, states, rows)
        if have == want.shape or not known:
            return want
        return jax.ShapeDtypeStruct(have, want.dtype, sharding=_dividing(want.sharding, have))

    return jax.tree_util.tree_map_with_path(one, like)


def laid(found: Any, like: Any) -> Any:
    """Arrays in the shapes that are wanted; `found` and `like` as in `as_stored`."""
    if jax.tree.map(lambda a: a.shape, found) == jax.tree.map(lambda a: a.shape, like):
        return found
    places = jax.tree.map(lambda a: a.sharding, like)
    fit = lambda tree: jax.tree.map(lambda a, want: _laid(a, want.shape), tree, like)
    return jax.jit(fit, out_shardings=places)(found)


def _laid(a: Array, shape: tuple[int, ...]) -> Array:
    if a.shape == shape:
        return a
    if a.shape == _joined(shape):
        return a.reshape(shape)
    a = a[tuple(map(slice, shape))]
    return jnp.pad(a, [(0, want - n) for n, want in zip(a.shape, shape)])


def _joined(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The last three axes as one; a bias of a layer in a stack has four, a kernel five."""
    return (*shape[:-3], math.prod(shape[-3:])) if len(shape) > 3 else shape


def _longer(have: tuple[int, ...], want: tuple[int, ...], states: int, rows: int) -> bool:
    """Whether they differ in the zeros behind the vocabulary alone."""
    if len(have) != len(want):
        return False
    other = [(a, b) for a, b in zip(have, want) if a != b]
    return len(other) == 1 and other[0][0] == rows and other[0][1] >= states > 0


def _dividing(place: Any, shape: tuple[int, ...]) -> Any:
    """The sharding of the first axes, as far as the mesh divides them."""
    if not isinstance(place, NamedSharding):
        return place
    names = (*place.spec, *[None] * len(shape))[: len(shape)]
    size = lambda name: math.prod(place.mesh.shape[n] for n in _names(name))
    fit = [name if n % size(name) == 0 else None for name, n in zip(names, shape)]
    return NamedSharding(place.mesh, PartitionSpec(*fit))


def _names(name: Any) -> tuple[str, ...]:
    return () if name is None else (name,) if isinstance(name, str) else tuple(name)
