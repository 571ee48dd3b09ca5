"""The latent between calls: what becomes of it, and what a loop keeps beside it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array


class Watched(NamedTuple):
    """The latent of a call, and what was seen of it, which goes along with it through any rule."""

    h: Any
    seen: Any


@register("latent", "latent")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent:
    """What becomes of h, at every network call: a step may make several.

    `reset_every` k > 0: all calls of steps 0, k, 2k, ... get h = 0 (1 = the latent is off);
    `frozen` keeps the latent of the first step for all later ones; `reset_on_remask` puts h = 0 at
    positions that are masked again, whose latent has seen the token taken back.
    """

    reset_every: int = 0
    frozen: bool = False
    reset_on_remask: bool = False

    def __post_init__(self):
        if self.reset_every < 0:
            raise ValueError(f"reset_every is {self.reset_every}; 0 = never, k = every k steps")

    @property
    def off(self) -> bool:
        """Every call gets h = 0."""
        return self.reset_every == 1

    def given(self, h: Any, i: Array | int) -> Any:
        """The latent that a call of step i gets."""
        if not self.reset_every:
            return h
        return jax.tree.map(lambda a: jnp.where(i % self.reset_every == 0, 0, a), h)

    def kept(self, given: Any, new: Any, i: Array | int) -> Any:
        """The latent that is carried on from a call of step i.

        Args:
          given: what the call got, of `given`.
          new: what it returned, in the same structure.
          i: number of the step, from 0.
        """
        if not self.frozen:
            return new
        return jax.tree.map(lambda a, b: jnp.where(i == 0, b, a), given, new)


def taken_back(masked: Array, h: Any) -> Any:
    """The latent with 0 at positions that are masked again.

    Args:
      masked: those positions, [B, L].
      h: leaves [B, L, ...].

    Raises:
      UserError: for a latent that is not by position.
    """
    if isinstance(h, Watched):
        return h._replace(h=taken_back(masked, h.h))
    if any(a.shape[1] != masked.shape[1] for a in jax.tree.leaves(h)):
        raise UserError(
            "latent.reset_on_remask takes h back position by position, and this network's is "
            "by patch; leave it off"
        )
    return positions.where(masked, jax.tree.map(jnp.zeros_like, h), h)
