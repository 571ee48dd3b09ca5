"""Forward processes over tokens: prior, corruption, posterior, rate and bound."""

from ldd_jax.processes.base import token_space
from ldd_jax.processes.gaussian import Gaussian
from ldd_jax.processes.interpolant import Interpolant
from ldd_jax.processes.joint import Joint
from ldd_jax.processes.kernels import (
    BandKernel,
    GraphKernel,
    MaskedKernel,
    NeighbourKernel,
    UniformKernel,
)
from ldd_jax.processes.left_to_right import LeftToRight
from ldd_jax.processes.masked import Masked
from ldd_jax.processes.score import MaskedMean, MaskedScore, UniformScore
from ldd_jax.processes.scud import Scud
from ldd_jax.processes.sphere import Sphere
from ldd_jax.processes.uniform import Uniform

__all__ = [
    "BandKernel",
    "Gaussian",
    "GraphKernel",
    "Interpolant",
    "Joint",
    "LeftToRight",
    "Masked",
    "MaskedKernel",
    "MaskedMean",
    "MaskedScore",
    "NeighbourKernel",
    "Scud",
    "Sphere",
    "Uniform",
    "UniformKernel",
    "UniformScore",
    "token_space",
]
