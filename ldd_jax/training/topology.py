"""Where devices stand in a mesh: neighbours of a torus share an axis, slices share data alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils


def grid(devices: Sequence[Any], sizes: Sequence[int], rows: int) -> np.ndarray:
    """Devices as an array of these sizes.

    On TPUs as `mesh_utils` lays them over the torus, and with several slices the first axis over
    the network between them. Kept is the order that JAX gives where there is no torus, where
    nothing fits it, and where a process would have rows of a batch that do not follow each other.

    Args:
      devices: as many as the product of `sizes`.
      sizes: of the mesh axes.
      rows: number of first axes over which a batch is cut.
    """
    plain = np.asarray(devices).reshape(sizes)
    if devices[0].platform != "tpu" or len(devices) == 1:
        return plain
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if sizes[0] % slices:
        return plain
    try:
        if slices == 1:
            found = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        else:
            within = (sizes[0] // slices, *sizes[1:])
            between = (slices, *[1] * (len(sizes) - 1))
            found = mesh_utils.create_hybrid_device_mesh(
                within, between, devices, allow_split_physical_axes=True
            )
    except (ValueError, NotImplementedError, AssertionError):
        return plain
    return found if consecutive(found, rows) else plain


def consecutive(devices: np.ndarray, rows: int) -> bool:
    """Whether the pieces of a batch that a process holds follow each other.

    Args:
      devices: as a mesh.
      rows: number of first axes over which a batch is cut.
    """
    pieces = math.prod(devices.shape[:rows])
    held: dict[int, set[int]] = defaultdict(set)
    for piece, places in enumerate(devices.reshape(pieces, -1)):
        for device in places:
            held[device.process_index].add(piece)
    return all(max(own) - min(own) + 1 == len(own) for own in held.values())
