"""Unnormalised laws that a sampler is learned for without data: lattices, or your own weight."""

from ldd_jax.targets.base import Target, Truth
from ldd_jax.targets.lattices import Ising, Lattice, Potts

__all__ = ["Ising", "Lattice", "Potts", "Target", "Truth"]
