"""`python -m ldd_jax`."""

from ldd_jax.cli.main import run

run()
