"""`python -m ldd_jax`."""

from ldd_jax.main import run

run()
