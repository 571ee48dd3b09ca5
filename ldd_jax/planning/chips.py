"""Published figures of TPU chips, for estimates that are called estimates."""

from __future__ import annotations

import dataclasses

from ldd_jax.core.checks import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Chip:
    """Per chip: memory in GiB, bfloat16 TFLOP/s, memory and interconnect bandwidth in GB/s.

    `cores`: devices that JAX shows per chip.
    """

    memory_gib: float
    tflops: float
    memory_gb_s: float
    link_gb_s: float
    cores: int = 1


CHIPS = {
    "v4": Chip(32, 275, 1228, 300, cores=2),
    "v5e": Chip(16, 197, 819, 200),
    "v5p": Chip(95, 459, 2765, 600),
    "v6e": Chip(32, 918, 1640, 448),
    "tpu7x": Chip(192, 2307, 7380, 1200, cores=2),
}


def chip(topology: str) -> Chip:
    """The chip of a topology such as v5e:4x4.

    Raises:
      UserError: for a malformed or unknown name.
    """
    name, colon, grid = topology.partition(":")
    if not colon or not grid or not all(p.isdigit() for p in grid.split("x")):
        raise UserError(f"topology {topology!r} is not CHIP:AxB or CHIP:AxBxC, such as v5e:4x4")
    if name not in CHIPS:
        raise UserError(f"unknown chip {name!r}; {nearest(name, CHIPS)}")
    return CHIPS[name]
