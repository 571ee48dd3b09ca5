"""One mesh (data, fsdp, tensor, sequence) and one table from logical to mesh axes.

One device is the trivial mesh; there is no other path.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ldd_jax.core import logical
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import register
from ldd_jax.training import topology

AXES = ("data", "fsdp", "tensor", "sequence")
BATCH = ("data", "fsdp")
HOST, DEVICE = "pinned_host", "device"  # kinds of memory
ACTIVATIONS: dict[str, str | tuple[str, ...]] = {
    "batch": BATCH,
    "length": "sequence",
    "rows": (*BATCH, "sequence"),
    "heads": "tensor",
    "mlp": "tensor",
    "vocabulary": "tensor",
    "width": "fsdp",
}
RULES: dict[str, str | None] = {
    "layer": None,
    "vocabulary": "tensor",
    "width": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "cond": None,
    "features": None,
    "modulation": "fsdp",
    "classes": None,
    "latent": None,
}


@register("mesh", "mesh")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices along each axis; -1 (at most once) takes what is left.

    Attributes:
      data: devices that share a batch, each with all parameters.
      fsdp: devices that share a batch and the parameters, gathered at their use.
      tensor: devices that share heads, hidden units and the vocabulary.
      sequence: devices that share the positions of a row; keys and values are gathered.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self):
        wrong = [n for n in AXES if not (getattr(self, n) == -1 or getattr(self, n) >= 1)]
        if wrong:
            raise ValueError(f"{wrong[0]} is {getattr(self, wrong[0])}; -1 or at least 1 devices")

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name)}" for name in AXES)

    def make(self, devices: list | None = None) -> Mesh:
        """The mesh over all devices, or those given.

        Raises:
          UserError: when the axes do not multiply to the number of devices.
        """
        devices = jax.devices() if devices is None else devices
        sizes = [self.data, self.fsdp, self.tensor, self.sequence]
        known = math.prod(s for s in sizes if s != -1)
        require(
            sizes.count(-1) <= 1 and known > 0 and len(devices) % known == 0,
            f"mesh {dict(zip(AXES, sizes))} does not divide {len(devices)} devices; use -1 for at "
            "most one axis and let the others divide the number of devices",
        )
        sizes = [len(devices) // known if s == -1 else s for s in sizes]
        require(
            math.prod(sizes) == len(devices),
            f"mesh {dict(zip(AXES, sizes))} has {math.prod(sizes)} places for {len(devices)} "
            "devices",
        )
        array = topology.grid(devices, sizes, len(BATCH))
        return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Mesh axes of one parameter; a mesh axis is used once, by the first dimension asking.

    Args:
      axes: logical names of its dimensions; None = whole everywhere.

    Raises:
      UserError: for a name without a rule.
    """
    used: set[str] = set()
    out: list[str | None] = []
    for axis in axes:
        require(
            axis is None or axis in RULES,
            f"the network's axes name {axis!r}; {nearest(str(axis), RULES)}",
        )
        place = None if axis is None else RULES[axis]
        out.append(None if place in used else place)
        used |= {place} if place else set()
    return PartitionSpec(*out)


def parameters(mesh: Mesh, axes: Any) -> Any:
    """Shardings of a parameter tree from its logical axes."""
    return jax.tree.map(
        lambda a: NamedSharding(mesh, spec(a)), axes, is_leaf=lambda a: isinstance(a, tuple)
    )


def check(mesh: Mesh, axes: Any, shapes: Any) -> None:
    """Refuse in words, before anything compiles, what the mesh cannot divide.

    Args:
      mesh: devices by axis.
      axes: logical axes of every parameter, a tree of tuples.
      shapes: arrays or their shapes, in the same structure.

    Raises:
      UserError: naming the parameter, its size and the mesh axis.
    """

    def one(path, names, like):
        for size, place in zip(like.shape, spec(names)):
            if place and size % mesh.shape[place]:
                raise_words(path, like.shape, size, place)

    def raise_words(path, shape, size, place):
        require(
            False,
            f"parameter {jax.tree_util.keystr(path)} of shape {tuple(shape)}: {size} is not a "
            f"multiple of mesh axis {place!r} ({mesh.shape[place]}); change the mesh or the size",
        )

    jax.tree_util.tree_map_with_path(one, axes, shapes, is_leaf=lambda a: isinstance(a, tuple))


@dataclasses.dataclass(frozen=True)
class MeshLayout:
    """Logical axes of activations on a mesh."""

    mesh: Mesh

    def _laid(self, axes: logical.Axes) -> PartitionSpec:
        return PartitionSpec(*(None if a is None else ACTIVATIONS[a] for a in axes))

    def constrain(self, x: jax.Array, axes: logical.Axes) -> jax.Array:
        """`x` laid by these axes."""
        sharding = NamedSharding(self.mesh, self._laid(axes))
        return jax.lax.with_sharding_constraint(x, sharding)

    def pieces(self, axis: str) -> int:
        """Number of devices along a logical axis."""
        places = ACTIVATIONS[axis]
        names = (places,) if isinstance(places, str) else places
        return math.prod(self.mesh.shape[name] for name in names)

    def split(
        self, fn: Callable, inputs: tuple[logical.Axes, ...], output: logical.Axes
    ) -> Callable:
        """`fn` run by every device on its own share."""
        return jax.shard_map(
            fn,
            mesh=self.mesh,
            in_specs=tuple(map(self._laid, inputs)),
            out_specs=self._laid(output),
            check_vma=False,
        )


def on(mesh: Mesh, fn: Callable) -> Callable:
    """`fn` whose activations, when it is traced, are laid on the mesh by their logical axes."""
    if mesh.size == 1:
        return fn

    @functools.wraps(fn, updated=())
    def wrapped(*args, **kwargs):
        with logical.placed(MeshLayout(mesh)):
            return fn(*args, **kwargs)

    return wrapped


def replicated(mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def on_host(places: Any) -> Any:
    """Shardings of the same layout in the memory of the devices' hosts."""
    return jax.tree.map(lambda place: place.with_memory_kind(HOST), places)


def batch(mesh: Mesh) -> NamedSharding:
    """Leading axis over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def shards(mesh: Mesh) -> int:
    """Number of pieces that a batch is cut into."""
    return math.prod(mesh.shape[a] for a in BATCH)


def own(mesh: Mesh, rows: int) -> range:
    """Rows of a batch that this process's devices hold; processes of one shard hold the same.

    Args:
      mesh: devices by axis, of all processes.
      rows: of the global batch, a multiple of `shards`.

    Raises:
      UserError: where they do not follow each other.
    """
    held = batch(mesh).addressable_devices_indices_map((rows,)).values()
    pieces = sorted({place[0].indices(rows)[:2] for place in held if place is not None})
    require(
        all(a[1] == b[0] for a, b in zip(pieces, pieces[1:])),
        f"process {jax.process_index()} would hold pieces {pieces} of a batch, which do not follow "
        "each other; order the devices of the mesh by process",
    )
    return range(pieces[0][0], pieces[-1][1])


def everywhere(mesh: Mesh, key: jax.Array) -> jax.Array:
    """The same random key on every device of every process."""
    data = np.asarray(jax.random.key_data(key))
    whole = jax.make_array_from_callback(data.shape, replicated(mesh), lambda i: data[i])
    return jax.jit(jax.random.wrap_key_data)(whole)


def put(mesh: Mesh, arrays: Any) -> Any:
    """Global arrays from this process's rows (`own`) as numpy ones, sharded over the batch."""
    sharding = batch(mesh)
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(sharding, np.asarray(a)), arrays
    )


def put_whole(mesh: Mesh, arrays: Any) -> Any:
    """Global arrays sharded over the batch, from numpy ones that every process has whole."""
    sharding = batch(mesh)

    def one(a: Any) -> jax.Array:
        a = np.asarray(a)
        return jax.make_array_from_callback(a.shape, sharding, lambda place: a[place])

    return jax.tree.map(one, arrays)
