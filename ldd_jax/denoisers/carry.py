"""What a call leaves to the next one, and how that enters: h, or an embedding of its prediction.

A carried signal is one array [B, L, K], zeros where there is none, so that gates, samplers,
buffers and bounds need not know which it is. Soft signals are made from the call's own prediction
p(x | z), without the mask: an embedding s [D], a channel that says that there is one, and the
entropy H of p in nats.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import at_least_one
from ldd_jax.core.logical import constrain, pieces
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, TokenSpace, Trunk
from ldd_jax.core.vocabulary_tiles import AUTO, rows
from ldd_jax.denoisers import layers

BESIDE = 2  # channels of a soft signal beside its embedding


@register("carry", "hidden")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hidden:
    """h: E[z] + LayerNorm(h), zero at first (LDDM, arXiv 2510.19304)."""

    soft = False

    def channels(self, width: int, narrow: int) -> int:
        """K, of the network's width, or the first ones of it.

        Args:
          width: D.
          narrow: `model.latent_width`; 0 = all.
        """
        return narrow or width

    def module(self, width: int, tokens: TokenSpace) -> nn.Module:
        """The layer that reads it: (x [B, L, D], h [B, L, K]) to what is added to x."""
        del width, tokens
        return layers.LatentNorm()

    def entering(self, module: Any, x: Array, h: Array) -> Array:
        """What is added to E[z], float32 [B, L, D].

        Args:
          module: of `module`.
          x: E[z], [B, L, D].
          h: [B, L, K].
        """
        fused = module(h)
        if h.shape[-1] < x.shape[-1]:
            fused = jnp.pad(fused, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] - h.shape[-1])])
        return fused

    def axes(self, own: tuple[str, ...]) -> dict[str, Any]:
        """Logical axes of its parameters.

        Args:
          own: of K channels.
        """
        return {"norm": {"scale": own, "bias": own}}

    def made(self, denoiser: Any, trunk: Trunk) -> Array:
        """What the next call gets: the residual stream after the last block."""
        del denoiser
        return trunk.latent

    def operations(self, width: int, states: int) -> float:
        """Of making it at one position, beside the trunk: none."""
        del width, states
        return 0.0

    def reading(self, width: int) -> float:
        """Operations of the layer that reads it, at one position: no products."""
        del width
        return 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soft:
    """What soft signals share. `top_k` tokens are kept, renormalised; 0 = all."""

    top_k: int = 0

    soft: ClassVar[bool] = True

    def __post_init__(self):
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be 0 (all tokens) or more")

    def channels(self, width: int, narrow: int) -> int:
        """D of the embedding, one that says that there is one, and the entropy."""
        del narrow
        return width + BESIDE

    def entering(self, module: Any, x: Array, h: Array) -> Array:
        """What is added to E[z]; 0 where nothing is carried.

        `module`, `x` and `h` are those of `Hidden.entering`.
        """
        soft, present, entropy = jnp.split(h, [x.shape[-1], x.shape[-1] + 1], axis=-1)
        return present * module(x, soft, entropy)

    def made(self, denoiser: Any, trunk: Trunk) -> Array:
        """[s, 1, H] of the call's prediction, [B, L, D + 2] float32; projected tile by tile.

        Args:
          denoiser: its head predicts, its table embeds.
          trunk: of the call.
        """
        config = denoiser.config
        table = constrain(denoiser.params["trunk"]["embed"]["table"], "vocabulary", None)
        table = table[: config.tokens.size]
        mask = -1 if config.tokens.mask is None else config.tokens.mask
        hidden = jnp.arange(config.tokens.size) == mask
        shards, batch = pieces("batch"), trunk.features.shape[0]

        def read(logits: Array, _: Any) -> Array:
            logp = jax.nn.log_softmax(jnp.where(hidden, -jnp.inf, logits), axis=-1)
            p = jnp.exp(logp)
            entropy = -jnp.sum(p * jnp.where(hidden, 0, logp), -1, keepdims=True)
            if self.top_k:
                best, ids = jax.lax.top_k(p, min(self.top_k, p.shape[-1]))
                share = best / jnp.sum(best, -1, keepdims=True)
                soft = jnp.sum(share[..., None] * table[ids], axis=-2)
            else:
                soft = p.astype(table.dtype) @ table
            out = jnp.concatenate([soft, jnp.ones_like(entropy), entropy], -1)
            return out.astype(jnp.float32)

        groups = shards if batch % shards == 0 else 1
        flat = positions.flat(trunk.features)
        length = trunk.features.shape[1]
        out = rows(read, denoiser.head, flat, (), tile=AUTO, groups=groups, length=length)
        return out.reshape(*trunk.features.shape[:2], -1)

    def operations(self, width: int, states: int) -> float:
        """Of making it at one position: the head, and p E where all tokens are kept."""
        return 2.0 * width * states * (1 if self.top_k else 2)

    def reading(self, width: int) -> float:
        """Operations of the layer that reads it, at one position: no products."""
        del width
        return 0.0


class Weighed(nn.Module):
    """lambda (s - x), lambda = scale sigmoid(rate (-H - shift)), learned, 0 at first."""

    @nn.compact
    def __call__(self, x: Array, soft: Array, entropy: Array) -> Array:
        """What is added to x [B, L, D].

        Args:
          x: E[z], [B, L, D].
          soft: s, [B, L, D].
          entropy: H in nats, [B, L, 1].
        """
        start = nn.initializers.constant
        own = lambda name, value: self.param(name, start(value), ())
        weight = own("scale", 0.0) * nn.sigmoid(own("rate", 1.0) * (-entropy - own("shift", 0.0)))
        return weight * (soft - x)


@register("carry", "soft_mask")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftMask(Soft):
    """(1 - lambda) E[z] + lambda sum_k pi_k E[k] over the top k, less the surer the network is not.

    Soft-masked diffusion language models (ICLR 2026): k = 3, at masked positions. lambda = scale
    sigmoid(rate (-H - shift)) with three learned numbers; here scale is 0 at first, so that the
    network begins as the one without.
    """

    top_k: int = 3

    def module(self, width: int, tokens: TokenSpace) -> nn.Module:
        """See `Weighed`."""
        del width, tokens
        return Weighed()

    def axes(self, own: tuple[str, ...]) -> dict[str, Any]:
        """Three numbers."""
        del own
        return {"scale": (), "rate": (), "shift": ()}


class Mixed(nn.Module):
    """alpha (s - x), alpha = H / log(symbols)."""

    most: float

    def __call__(self, x: Array, soft: Array, entropy: Array) -> Array:
        """What is added to x; `x`, `soft` and `entropy` are those of `Weighed`."""
        return jnp.clip(entropy / self.most, 0, 1) * (soft - x)


@register("carry", "entropy_mix")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyMix(Soft):
    """(1 - alpha) E[z] + alpha sum_v p_v E[v], alpha = H / log(symbols): RCD, arXiv 2601.22954.

    No parameters. There a frozen reference model makes p; here the network itself does.
    """

    def module(self, width: int, tokens: TokenSpace) -> nn.Module:
        """See `Mixed`."""
        del width
        return Mixed(math.log(max(tokens.size - (tokens.mask is not None), 2)))

    def axes(self, own: tuple[str, ...]) -> dict[str, Any]:
        """None."""
        del own
        return {}


class Fed(nn.Module):
    """W2 gelu(W1 RMS(s)), zero at first."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array, soft: Array, entropy: Array) -> Array:
        """What is added to x; `x`, `soft` and `entropy` are those of `Weighed`."""
        del entropy
        width = x.shape[-1]
        y = nn.RMSNorm(epsilon=layers.LAYER_NORM_EPS, dtype=jnp.float32, name="norm")(soft)
        y = layers.gelu(layers.dense(self.hidden, width, "in", jnp.float32)(y))
        return layers.zero_dense(width, "out", jnp.float32)(y)


@register("carry", "soft_ffn")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftFfn(Soft):
    """E[z] + FFN(RMS(sum_v p_v E[v])): self-conditioning as of DiffusionGemma.

    Its norm of the sum is left out: the first block begins with one. Zero at first.

    Attributes:
      ratio: hidden units, as a multiple of the width.
    """

    ratio: int = 1

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "ratio")

    def module(self, width: int, tokens: TokenSpace) -> nn.Module:
        """See `Fed`."""
        del tokens
        return Fed(self.ratio * width)

    def reading(self, width: int) -> float:
        """Of two linear layers."""
        return 4.0 * self.ratio * width**2

    def axes(self, own: tuple[str, ...]) -> dict[str, Any]:
        """Of two linear layers and a norm."""
        del own
        return {
            "norm": {"scale": ("width",)},
            "in": {"kernel": ("width", "mlp"), "bias": ("mlp",)},
            "out": {"kernel": ("mlp", "width"), "bias": ("width",)},
        }


PLACES = ("all", "masked")


def entering(model: Any, module: Any, z: Array, x: Array, h: Array | None) -> Array:
    """What is carried, as it is added to E[z]: float32 [B, L, D].

    Args:
      model: a network's config; `carry` and `carry_at` say how and where.
      module: of its carry.
      z: tokens, [B, L].
      x: E[z], [B, L, D].
      h: latent of the call before, [B, L, K]; None = zeros.
    """
    h = jnp.zeros((*x.shape[:-1], model.latent_size), model.latent_type) if h is None else h
    fused = model.carry.entering(module, x, h)
    if model.carry_at == "masked":
        fused = jnp.where((z == model.tokens.mask)[..., None], fused, 0)
    return fused


def check_carried(model: Any) -> None:
    """Refuse what a network cannot carry, or not there.

    Args:
      model: a network's config.

    Raises:
      ValueError: in words.
    """
    tokens, plain = model.tokens, not model.carry.soft and model.carry_at == "all"
    if model.carry_at not in PLACES:
        raise ValueError(f"carry_at {model.carry_at!r} is not one of {', '.join(PLACES)}")
    if not (plain or model.latent):
        raise ValueError("carry and carry_at are of a latent, and latent is False; set it True")
    if model.carry.soft and model.latent_width:
        raise ValueError("latent_width is of carry hidden; a soft signal is as wide as the network")
    if not plain and (model.points or not model.by_token or (tokens and tokens.digits > 1)):
        raise ValueError(
            "soft signals and carry_at=masked are of tokens that enter by a table; leave carry "
            "hidden and carry_at all for points, digits and signals"
        )
    if model.carry_at == "masked" and tokens and tokens.mask is None:
        raise ValueError("carry_at masked: this process has no mask; set it to all")
