"""How a state enters the network: tokens by a table, points by a linear map."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array
from ldd_jax.denoisers import layers


@register("input", "tokens")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """E[z], a row of the table [V, D] for every token."""

    def module(self, states: int, width: int) -> nn.Module:
        """The layer."""
        return layers.Embedding(states, width)

    def example(self, states: int) -> Array:
        """A state [1, 2] that the layer is made with."""
        del states
        return jnp.zeros((1, 2), jnp.int32)

    def axes(self) -> dict[str, Any]:
        """Logical axes of its parameters."""
        return {"table": ("vocabulary", "width")}


class Projection(nn.Module):
    """X W + b for points [B, L, C], float32."""

    channels: int
    width: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """[B, L, C] to [B, L, D]."""
        if z.ndim != 3 or z.shape[-1] != self.channels:
            raise ValueError(
                f"model.input=linear takes points [B, L, {self.channels}], not {z.shape}; tokens "
                "enter by input=tokens"
            )
        return layers.dense(self.width, self.channels, "in", jnp.float32)(z)


@register("input", "linear")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """x W + b for the points x [B, L, C] of a process whose states are no tokens.

    channels: C; 0 = one for every token.
    """

    channels: int = 0

    def module(self, states: int, width: int) -> nn.Module:
        """The layer."""
        return Projection(self.channels or states, width)

    def example(self, states: int) -> Array:
        """A state [1, 2, C] that the layer is made with."""
        return jnp.zeros((1, 2, self.channels or states))

    def axes(self) -> dict[str, Any]:
        """Logical axes of its parameters."""
        return {"in": {"kernel": ("features", "width"), "bias": ("width",)}}
