"""GPT-2 (Radford et al., 2019): learned positions, LayerNorm, fused biased products, tied head."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one, require
from ldd_jax.core.logical import constrain
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Attend
from ldd_jax.denoisers.attention import apart, kernel
from ldd_jax.denoisers.decoder import Decoder
from ldd_jax.denoisers.decoder_network import DecoderBlock
from ldd_jax.denoisers.linears import QKV, Adapter


class Norm(nn.Module):
    """LayerNorm with weight and bias, in float32, returned in the input's type."""

    eps: float

    @partial(nn.remat, prevent_cse=False)
    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise the last axis."""
        wide = jnp.promote_types(x.dtype, jnp.float32)
        norm = nn.LayerNorm(epsilon=self.eps, dtype=wide, use_fast_variance=False, name="norm")
        return norm(x).astype(x.dtype)


class Block(DecoderBlock):
    """x + attention(norm(x)), then x + W gelu(U norm(x))."""

    width: int
    heads: int
    tanh: bool
    norm_eps: float
    dtype: Any
    attention: str
    adapter: Adapter
    remat: Any = None

    @nn.compact
    def one(self, x, layer, c, place, segment, attend: Attend, keys_B, cache):
        """One chunk, [B, L, D], and its rows for the cache.

        Args:
          x: [B, L, D].
          layer: its number.
          c: None.
          place: not read; positions are in x.
          segment: documents [B, L]; None = one.
          attend: who sees whom within them.
          keys_B: None, there is no dropout.
          cache: of the positions before; None = all positions are here.

        Returns:
          The new x, and what enters the cache of these positions (None without one).
        """
        del layer, c, place, keys_B
        d = self.width
        y = Norm(self.norm_eps, name="norm1")(x)
        q, k, v = apart(self.product((3, self.heads, d // self.heads), QKV, True)(y))
        rows = None
        if cache is None:
            y = kernel(self.attention)(q, k, v, segment, attend)
        else:
            y, rows = cache.attend(q, k, v, attend)
        x = x + self.product(d, "out", True)(y.reshape(x.shape))
        y = Norm(self.norm_eps, name="norm2")(x)
        inner = _gelu(self.product(4 * d, "up", True)(y), self.tanh)
        x = x + self.product(d, "down", True)(inner)
        return constrain(x, "batch", "length", None), rows


@partial(jax.checkpoint, prevent_cse=False, static_argnums=1)
def _gelu(x: Array, tanh: bool) -> Array:
    return nn.gelu(x, approximate=tanh)


@register("model", "gpt2")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GPT2(Decoder):
    """A GPT-2.

    The further attributes are those of `Decoder`.

    Attributes:
      positions: rows of the table of positions: the longest row, the start included.
      tanh: GELU by the hyperbolic tangent, as published; else by the error function.
    """

    positions: int = 1024
    tanh: bool = True

    linears = (QKV, "out", "up", "down")

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "positions")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of the {self.heads} heads")

    @property
    def learned_positions(self) -> int:  # type: ignore[override]
        """Rows of the table of positions."""
        return self.positions

    @property
    def key_heads(self) -> tuple[int, int]:
        """Heads, and channels of one."""
        return self.heads, self.width // self.heads

    def family(self) -> str:
        """That of its name."""
        return "gpt2"

    def check_length(self, length: int) -> None:
        """Refuse rows longer than the table of positions.

        Raises:
          UserError: with both numbers.
        """
        require(
            length <= self.positions,
            f"rows of {length} tokens (the start counts) are longer than the {self.positions} "
            "positions of this GPT-2; set data.length lower",
        )

    def layer(self) -> tuple[Any, dict[str, Any]]:
        """Class of a block, and its fields."""
        return Block, dict(
            width=self.width,
            heads=self.heads,
            tanh=self.tanh,
            norm_eps=self.norm_eps,
            attention=self.attention,
        )

    def norm(self) -> nn.Module:
        """The final norm."""
        return Norm(self.norm_eps)

    def place(self, position: Array) -> None:
        """Nothing: positions are added to the embedding."""
        del position

    def layer_operations(self, length: int) -> float:
        """Of one position in one block: 2 (12 D^2 + 2 L D)."""
        return 24.0 * self.width**2 + 4 * length * self.width
