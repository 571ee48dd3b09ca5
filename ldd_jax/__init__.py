"""Loopholing discrete diffusion in JAX: training, sampling and evaluation."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`ldd_jax.load`; JAX is only imported when it is asked for."""
    if name == "load":
        from ldd_jax.inference.pipeline import load

        return load
    raise AttributeError(f"module 'ldd_jax' has no attribute {name!r}")
