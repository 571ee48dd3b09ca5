"""Data that flows between the stages, and the protocols of those who handle it."""

from ldd_jax.core.types.draw import Draw
from ldd_jax.core.types.forward import Forward
from ldd_jax.core.types.network import Context, Denoiser, Head, Model
from ldd_jax.core.types.objective import Objective
from ldd_jax.core.types.process import Process
from ldd_jax.core.types.reverse import Reverse
from ldd_jax.core.types.values import (
    ATTENDS,
    Array,
    Attend,
    Batch,
    Cond,
    Loss,
    TokenSpace,
    Trunk,
    as_batch,
)

__all__ = [
    "ATTENDS",
    "Array",
    "Attend",
    "Batch",
    "Cond",
    "Context",
    "Denoiser",
    "Draw",
    "Forward",
    "Head",
    "Loss",
    "Model",
    "Objective",
    "Process",
    "Reverse",
    "TokenSpace",
    "Trunk",
    "as_batch",
]
