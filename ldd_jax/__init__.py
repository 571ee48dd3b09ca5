"""Loopholing discrete diffusion in JAX: training, sampling and evaluation."""

__version__ = "0.1.0"
