"""The Llama family: RMSNorm, SwiGLU, grouped heads, rotary; Llama, Qwen2, Qwen3, LLaDA, Dream.

Llama (arXiv 2302.13971, 2407.21783), Qwen2 (biases of queries, keys and values), Qwen3 (a norm of
every head's query and key, heads of a width of their own); LLaDA, Dream and SDAR are these without
a causal mask.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one, require
from ldd_jax.core.logical import constrain
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Attend
from ldd_jax.denoisers.attention import kernel
from ldd_jax.denoisers.decoder import Decoder
from ldd_jax.denoisers.decoder_network import DecoderBlock
from ldd_jax.denoisers.frequencies import Plain
from ldd_jax.denoisers.linears import Adapter
from ldd_jax.denoisers.rotary import turned


class RMSNorm(nn.Module):
    """x / sqrt(mean x^2 + eps), in float32, in the input's type times a weight.

    Only x is kept for the backward pass.
    """

    eps: float

    @partial(nn.remat, prevent_cse=False)
    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise the last axis."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return y.astype(x.dtype) * scale.astype(x.dtype)


@partial(jax.checkpoint, prevent_cse=False)
def gated(gate: Array, up: Array) -> Array:
    """silu(gate) up; only its arguments are kept for the backward pass.

    Args:
      gate: [..., F].
      up: [..., F].
    """
    return nn.silu(gate) * up


class Block(DecoderBlock):
    """x + attention(norm(x)), then x + W (silu(G y) * U y) of y = norm(x)."""

    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    qkv_bias: bool
    qk_norm: bool
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
          place: (cosine, sine) of the angles, [L, half] or [B, L, half].
          segment: documents [B, L]; None = one.
          attend: who sees whom within them.
          keys_B: None, there is no dropout.
          cache: of the positions before; None = all positions are here.

        Returns:
          The new x, and what enters the cache of these positions (None without one).
        """
        del layer, c, keys_B

        def heads(name: str, count: int, norm: str = "") -> Array:
            a = self.product(count * self.head_width, name, self.qkv_bias)(y)
            a = a.reshape(*a.shape[:2], count, self.head_width)
            return RMSNorm(self.norm_eps, name=norm)(a) if norm and self.qk_norm else a

        y = RMSNorm(self.norm_eps, name="norm1")(x)
        q = turned(heads("q", self.heads, "q_norm"), *place)
        k = turned(heads("k", self.kv_heads, "k_norm"), *place)
        v = heads("v", self.kv_heads)
        rows = None
        if cache is None:
            y = kernel(self.attention)(q, k, v, segment, attend)
        else:
            y, rows = cache.attend(q, k, v, attend)
        y = y.reshape(*x.shape[:2], -1)
        x = x + self.product(self.width, "out", False)(y)

        y = RMSNorm(self.norm_eps, name="norm2")(x)
        inner = gated(
            self.product(self.hidden, "gate", False)(y),
            self.product(self.hidden, "up", False)(y),
        )
        x = x + self.product(self.width, "down", False)(inner)
        return constrain(x, "batch", "length", None), rows


@register("model", "llama")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama(Decoder):
    """A network of the Llama family.

    The further attributes are those of `Decoder`.

    Attributes:
      kv_heads: of keys and values, which divide `heads`; 0 = as many.
      head_width: channels of a head; 0 = width / heads.
      hidden: units of the MLP; 0 = 8/3 of the width, rounded up to a multiple of 8.
      qkv_bias: biases of queries, keys and values (Qwen2).
      qk_norm: an RMSNorm of every head's query and key (Qwen3).
      tied: the vocabulary projection is the token table.
      rope_base: of the rotary wavelengths.
      rope_fraction: share of a head's channels that is turned.
      frequencies: how they are scaled for long rows.
    """

    kv_heads: int = 0
    head_width: int = 0
    hidden: int = 0
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    rope_base: float = 10_000.0
    rope_fraction: float = 1.0
    frequencies: Any = component("frequencies", Plain)

    linears = ("q", "k", "v", "out", "gate", "up", "down")

    def __post_init__(self):
        super().__post_init__()
        for name in ("kv_heads", "head_width", "hidden"):
            if getattr(self, name):
                at_least_one(self, name)
        if not self.head_width and self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of the {self.heads} heads")
        if self.heads % self.key_heads[0]:
            raise ValueError(f"kv_heads {self.kv_heads} do not divide the {self.heads} heads")
        if not 0 < self.rope_fraction <= 1:
            raise ValueError(f"rope_fraction is {self.rope_fraction}; it must lie in (0, 1]")
        if self.rope_base <= 1:
            raise ValueError(f"rope_base is {self.rope_base}; it must be above 1")
        if self.channels % 2 or self.channels < 2:
            raise ValueError(
                f"{self.channels} of {self.key_heads[1]} channels of a head would be turned; it "
                "must be an even number"
            )

    @property
    def key_heads(self) -> tuple[int, int]:
        """Heads of keys and values, and channels of one."""
        return self.kv_heads or self.heads, self.head_width or self.width // self.heads

    @property
    def channels(self) -> int:
        """Channels of a head that are turned."""
        return int(self.key_heads[1] * self.rope_fraction)

    @property
    def units(self) -> int:
        """Hidden units of the MLP."""
        return self.hidden or -(-8 * self.width // 24) * 8

    def family(self) -> str:
        """By what its heads have; no family has biases and norms."""
        require(
            not (self.qkv_bias and self.qk_norm),
            "transformers has no network with model.qkv_bias and model.qk_norm; give --names=own",
        )
        return "qwen2" if self.qkv_bias else "qwen3" if self.qk_norm else "llama"

    def layer(self) -> tuple[Any, dict[str, Any]]:
        """Class of a block, and its fields."""
        kv_heads, head_width = self.key_heads
        return Block, dict(
            width=self.width,
            heads=self.heads,
            kv_heads=kv_heads,
            head_width=head_width,
            hidden=self.units,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            norm_eps=self.norm_eps,
            attention=self.attention,
        )

    def norm(self) -> nn.Module:
        """The final norm."""
        return RMSNorm(self.norm_eps)

    def place(self, position: Array) -> tuple[Array, Array]:
        """Cosine and sine of the rotary angles, float32 [..., half]."""
        found, factor = self.frequencies(self.channels, self.rope_base, jnp.max(position))
        angle = position[..., None].astype(jnp.float32) * found
        return jnp.cos(angle) * factor, jnp.sin(angle) * factor

    def layer_operations(self, length: int) -> float:
        """Of one position in one block: products twice each, scores and values 2 L each."""
        d, (groups, k) = self.width, self.key_heads
        products = d * k * (2 * self.heads + 2 * groups) + 3 * d * self.units
        return 2.0 * products + 4 * length * self.heads * k
