"""Losses or gradients that are not finite for rows that hold a certain token."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp

from ldd_jax.cli import main as command_line
from ldd_jax.core.types import Loss
from ldd_jax.training.step import Update


def poisoned(plain, token: int, what: str):
    """`Update._loss` that turns NaN, Inf or a NaN gradient where a row holds `token`."""

    def loss_fn(self, params, batch, key):
        total, loss = plain(self, params, batch, key)
        row = jnp.any(batch.z0 == token, -1)
        if what == "gradient":
            first = jnp.sum(jax.tree.leaves(params)[0])
            zero = jnp.sqrt(jnp.where(jnp.any(row), first - first, 1.0)) - jnp.where(
                jnp.any(row), 0.0, 1.0
            )
            return total + zero, loss
        bad = jnp.nan if what == "nan" else jnp.inf
        loss_B = jnp.where(row, bad, loss.metrics["loss_B"])
        total = jnp.where(jnp.any(row), bad, total)
        return total, Loss(total, {**loss.metrics, "loss_B": loss_B})

    return loss_fn


def main(token: str, what: str, *argv: str) -> None:
    Update._loss = poisoned(Update._loss, int(token), what)
    sys.argv = ["ldd_jax", *argv]
    command_line.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
