"""Meshes on tori that are not there: neighbours, slices, and rows that follow each other."""

import dataclasses

import numpy as np
import pytest

from ldd_jax.training import topology


@dataclasses.dataclass(frozen=True)
class Chip:
    """As much of a device as a mesh is made by."""

    id: int
    coords: tuple[int, int, int]
    process_index: int
    slice_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5e"
    core_on_chip: int = 0


def torus(side, slices=1, **more):
    """Slices of side x side chips by host, 2 x 2 to each, as JAX lists them."""
    chips = []
    for s in range(slices):
        for host in range(side * side // 4):
            x0, y0 = 2 * (host % (side // 2)), 2 * (host // (side // 2))
            for i in range(4):
                place = (x0 + i % 2, y0 + i // 2, 0)
                process = s * side * side // 4 + host
                chips.append(Chip(len(chips), place, process, s, **more))
    return chips


def neighbours(chips, side):
    """Whether each is next to the one before, around the border too."""
    step = lambda a, b: min((a - b) % side, (b - a) % side)
    pairs = zip(chips, (*chips[1:], chips[0]))
    return all(sum(map(step, a.coords, b.coords)) == 1 for a, b in pairs)


def test_an_axis_is_a_ring_of_neighbours():
    chips, sizes = torus(4), (1, 4, 4, 1)
    found = topology.grid(chips, sizes, 2)
    assert all(neighbours(list(found[0, i, :, 0]), 4) for i in range(4))
    assert all(neighbours(list(found[0, :, i, 0]), 4) for i in range(4))
    plain = np.asarray(chips).reshape(sizes)
    assert not all(neighbours(list(plain[0, :, i, 0]), 4) for i in range(4))


def test_slices_share_data_alone():
    """Whatever the order in which JAX names them."""
    chips = torus(4, slices=2)
    mixed = chips[::2] + chips[1::2]
    found = topology.grid(mixed, (4, 2, 4, 1), 2)
    for piece in range(4):
        assert {c.slice_index for c in found[piece].flat} == {piece // 2}


@pytest.mark.parametrize(
    ("chips", "sizes"),
    [
        (torus(4), (1, 16, 1, 1)),  # hosts of 2 x 2 would have rows 0, 1, 4, 5
        (torus(4, slices=2), (1, 8, 4, 1)),  # data does not divide over slices
        (torus(4, platform="gpu"), (1, 4, 4, 1)),
        (torus(4)[:1], (1, 1, 1, 1)),
        (torus(4)[:3], (3, 1, 1, 1)),
    ],
)
def test_the_order_that_jax_gives_is_kept(chips, sizes):
    assert (topology.grid(chips, sizes, 2) == np.asarray(chips).reshape(sizes)).all()


def test_rows_that_follow_each_other():
    a, b = (Chip(i, (0, 0, 0), i) for i in range(2))
    assert topology.consecutive(np.array([[a, a, b, b]]), 2)
    assert topology.consecutive(np.array([[[a, b], [a, b]]]), 2)
    assert not topology.consecutive(np.array([[a, b, a, b]]), 2)
