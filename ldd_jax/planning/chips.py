"""Published figures of TPU chips and GPUs, for estimates that are called estimates."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldd_jax.core.checks import UserError, is_whole, nearest


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


# Dense bfloat16 TFLOP/s of GPUs, by what JAX calls them (data sheets of the SXM boards).
GPUS = {
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H200": 989,
    "NVIDIA B200": 2250,
}

# What JAX calls a device of each.
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


def peak(devices: Any) -> float | None:
    """bfloat16 FLOP/s of these devices together at their published peak; None if not known."""
    kind = devices[0].device_kind
    if kind in GPUS:
        return len(devices) * GPUS[kind] * 1e12
    name = KINDS.get(kind)
    if name is None:
        return None
    return len(devices) * CHIPS[name].tflops * 1e12 / CHIPS[name].cores


def chip(topology: str) -> Chip:
    """The chip of a topology such as v5e:4x4.

    Raises:
      UserError: for a malformed or unknown name.
    """
    name, colon, grid = topology.partition(":")
    if not colon or not grid or not all(is_whole(p, 1) for p in grid.split("x")):
        raise UserError(f"topology {topology!r} is not CHIP:AxB or CHIP:AxBxC, such as v5e:4x4")
    if name not in CHIPS:
        raise UserError(f"unknown chip {name!r}; {nearest(name, CHIPS)}")
    return CHIPS[name]
