"""How a state enters the network: tokens by a table, points by a linear map."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers import layers


@register("input", "tokens")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """E[z], a row of the table [V, D] for every token."""

    points = False

    def module(self, states: int, width: int, padded: int = 0) -> nn.Module:
        """The layer.

        Args:
          states: V.
          width: D.
          padded: rows of the table, V at least.
        """
        return layers.Embedding(states, width, padded=padded)

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
    points = True

    def module(self, states: int, width: int, padded: int = 0) -> nn.Module:
        """The layer; it has no table. `states`, `width` and `padded` are those of `Tokens`."""
        del padded
        return Projection(self.channels or states, width)

    def example(self, states: int) -> Array:
        """A state [1, 2, C] that the layer is made with."""
        return jnp.zeros((1, 2, self.channels or states))

    def axes(self) -> dict[str, Any]:
        """Logical axes of its parameters."""
        return {"in": {"kernel": ("features", "width"), "bias": ("width",)}}


def by_digit(z: Any, cond: Cond, h: Any, digits: int) -> tuple[Any, Cond, Any]:
    """Rows [B, L, m, ...] laid out as [B, L m, ...]: every digit of a token is a position.

    Args:
      z: the state, leaves [B, L, m, ...].
      cond: what belongs to tokens in it goes with their digits.
      h: latent [B, L, m, K]; None = zeros.
      digits: m.

    Raises:
      ValueError: for attention that names single keys.
    """
    flat = lambda a: a.reshape(a.shape[0], -1, *a.shape[3:])
    each = lambda a: jnp.repeat(a, digits, axis=1)
    attend, position = cond.attend, cond.position
    if attend is not None and attend.mask is not None:
        raise ValueError("attend kind mask is by position; tokens written in digits have more")
    if position is not None:
        within = jnp.tile(jnp.arange(digits, dtype=position.dtype), position.shape[1])
        position = each(position * digits) + within
    clock = cond.clock
    if clock is not None and clock.ndim == 2:
        clock = each(clock)
    if attend is not None and attend.unit is not None:
        attend = attend.replace(unit=each(attend.unit))  # type: ignore[attr-defined]
    if attend is not None and attend.size:
        attend = attend.replace(size=attend.size * digits)  # type: ignore[union-attr]
    segment = None if cond.segment is None else each(cond.segment)
    cond = cond._replace(clock=clock, segment=segment, position=position, attend=attend)
    return jax.tree.map(flat, z), cond, jax.tree.map(flat, h)


def by_token(trunk: Trunk, digits: int) -> Trunk:
    """Features and latent of `digits` positions as those of one token, [B, L, m, ...]."""
    fold = lambda a: a.reshape(a.shape[0], -1, digits, *a.shape[2:])
    return trunk._replace(features=fold(trunk.features), latent=jax.tree.map(fold, trunk.latent))
