"""The negative log-likelihood of a left-to-right model: exact, no bound."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.draws import example_keys
from ldd_jax.core.registry import component, register, runtime
from ldd_jax.core.types import Array, Batch, Denoiser, Loss, Process
from ldd_jax.core.vocabulary_tiles import AUTO, check_tile, rows_loss
from ldd_jax.objectives.base import OfData, with_z
from ldd_jax.objectives.context import NoContext


def shifted(z0_BL: Array, segment_BL: Array | None, start: int) -> Array:
    """What the network reads to predict z0: the token before, or `start` where a document begins.

    Without segments a row is one document.

    Args:
      z0_BL: clean tokens.
      segment_BL: number of each position's document; None = one.
      start: the token that stands before a document.
    """
    first = jnp.full_like(z0_BL[:, :1], start)
    before = jnp.concatenate([first, z0_BL[:, :-1]], axis=1)
    if segment_BL is None:
        return before
    same = segment_BL[:, 1:] == segment_BL[:, :-1]
    begins = jnp.pad(~same, ((0, 0), (1, 0)), constant_values=True)
    return jnp.where(begins, jnp.asarray(start, z0_BL.dtype), before)


@register("objective", "next_token")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken(OfData):
    """-sum_i log p(x_i | x_1 .. x_{i-1}), nats per scored token; every token of a row counts.

    The first token is predicted from the start state, so that the sum is the whole row's
    likelihood and stands beside the bounds of diffusion models on the same tokens. `tile`,
    `groups` and `z_loss` as in `Nelbo`. No latent is carried: with all positions trained side by
    side there is no step before.
    """

    context: Any = component("context", NoContext)
    tile: int = AUTO
    z_loss: float = 0.0
    process: Process = runtime()
    groups: int = runtime()
    dropout: bool = runtime()

    exact = bounds = True
    chain = ""
    condition_dropout = 0.0
    needs_causal = True

    def __post_init__(self):
        check_tile(self.tile)
        if not 0 <= self.z_loss < 1:
            raise ValueError(f"z_loss is {self.z_loss}; it must lie in [0, 1), such as 1e-4")
        if self.context.carries:
            raise ValueError("next-token training carries no latent; context must be 'none'")

    def as_bound(self, passes: int) -> NextToken:
        """The same without dropout; there is one pass."""
        if passes != 1:
            raise ValueError(f"passes is {passes}; a left-to-right likelihood has one pass")
        return dataclasses.replace(self, dropout=False, z_loss=0.0)

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """Total = sum(weight * nll) / norm; `loss_B` is the same per example, unnormalised."""
        start = self.process.start  # type: ignore[attr-defined]  # of a left-to-right process
        z = shifted(batch.z0, batch.cond.segment, start)
        keys_B = example_keys(key, batch.index) if self.dropout else None
        features = denoiser.trunk(z, batch.cond, key=keys_B).features
        on = ~batch.keep
        flat = lambda a: a.reshape(-1, *a.shape[2:])
        total, loss = rows_loss(
            lambda logits, z0: with_z(self.process.bound(logits, z0, z0, z0), logits, self.z_loss),
            denoiser.head,
            flat(features),
            flat(batch.z0),
            flat(jnp.where(on, batch.weight / batch.norm, 0)),
            tile=self.tile,
            groups=self.groups or 1,
            length=z.shape[1],
        )
        loss_B = jnp.sum(loss.reshape(z.shape) * batch.weight, -1)
        return Loss(total, {"loss_B": loss_B, "scored": jnp.sum(on, dtype=jnp.int32)})
