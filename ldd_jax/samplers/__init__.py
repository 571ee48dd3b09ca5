"""Reverse side: time grids, step rules, read-out settings, and the one loop."""

from ldd_jax.samplers.ancestral import Ancestral
from ldd_jax.samplers.base import Clamp, Latent, SampleState
from ldd_jax.samplers.grids import CosineGrid, GeometricGrid, LinearGrid
from ldd_jax.samplers.loop import sample
from ldd_jax.samplers.next_token import NextToken

__all__ = [
    "Ancestral",
    "Clamp",
    "CosineGrid",
    "GeometricGrid",
    "Latent",
    "LinearGrid",
    "NextToken",
    "SampleState",
    "sample",
]
