"""Diffusion transformer with a loophole: E(z_t) + LayerNorm(h) in, (features, h) out.

LDDM, arXiv 2510.19304, section 4; reference network of MDLM, Duo and SEDD otherwise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError, at_least_one
from ldd_jax.core.products import linear
from ldd_jax.core.registry import component, register, runtime
from ldd_jax.core.types import Array, Cond, TokenSpace, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.attention import kernel
from ldd_jax.denoisers.inputs import Tokens, by_digit, by_token
from ldd_jax.denoisers.stack import REMAT, stacked, through


class Network(nn.Module):
    """Everything but the vocabulary projection; linen stays inside this file."""

    config: DiT

    def setup(self):
        """Submodules under the names that `interop` maps to the reference's."""
        c = self.config
        self.embed = c.embedding()
        if c.adaln:
            self.time = layers.TimeEmbedding(c.cond_width)
        if c.num_classes:
            self.classes = nn.Embed(c.num_classes + 1, c.cond_width)
        if c.latent:
            self.latent_norm = layers.LatentNorm()
        stack = stacked(layers.Block, c.depth, c.unroll)
        self.blocks = stack(
            width=c.width,
            heads=c.heads,
            mlp_ratio=c.mlp_ratio,
            dropout=c.dropout,
            dtype=jnp.dtype(c.dtype),
            attention=c.attention,
            adaln=c.adaln,
            remat=REMAT[c.remat],
            torus=c.torus,
        )
        self.final_norm = layers.Norm()
        if c.adaln:
            self.final_adaln = layers.zero_dense(2 * c.width, None, jnp.dtype(c.dtype))

    def inputs(self, z: Any, h: Array | None) -> Array:
        """E(z) + LayerNorm(h), float32 [B, L, D]; a latent of K < D channels adds to the first."""
        x, fused = self.parts(z, h)
        return x if fused is None else x + fused

    def parts(self, z: Any, h: Array | None) -> tuple[Array, Array | None]:
        """The two terms, [B, L, D] each; None without a latent."""
        x, narrow = self.embed(z), self.config.latent_size
        if not self.config.latent:
            return x, None
        fused = self.latent_norm(
            jnp.zeros((*x.shape[:-1], narrow), jnp.float32) if h is None else h
        )
        if narrow < x.shape[-1]:
            fused = jnp.pad(fused, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] - narrow)])
        return x, fused

    def conditioning(self, cond: Cond, batch: int) -> Array | None:
        """C = silu(time(sigma)) [+ silu(class)], [B, C] or [B, L, C]; None without adaLN."""
        if not self.config.adaln:
            return None
        c = nn.silu(self.time(self.config.told(cond, batch)))
        if self.config.num_classes and cond.label is not None:
            label = nn.silu(self.classes(cond.label))
            c = c + (label if c.ndim == 2 else layers.spread(label))
        return c

    def __call__(
        self, z: Any, cond: Cond, h: Array | None, keys_B: Array | None, cache: Any = None
    ) -> Trunk:
        """Run the trunk; with a cache, on the positions that follow those it holds.

        Args:
          z: the state, [B, L].
          cond: what the network is told beside it.
          h: latent of the pass before, [B, L, K]; None = zeros.
          keys_B: a PRNG key per example for dropout; None = no dropout.
          cache: keys and values of the positions before; None = all positions are here.
        """
        dtype = jnp.dtype(self.config.dtype)
        x = self.inputs(z, h).astype(dtype)
        c = self.conditioning(cond, x.shape[0])
        place = jnp.arange(x.shape[1]) if cond.position is None else cond.position
        x, cache = through(
            self.blocks,
            x,
            c,
            place,
            cond,
            keys_B,
            cache,
            chunks=self.config.chunks,
            causal=self.config.causal,
        )
        features = self.final_norm(x)
        if c is not None:
            shift, scale = jnp.split(layers.spread(self.final_adaln(c.astype(dtype))), 2, axis=-1)
            features = layers.modulate(features, shift, scale)
        kept = x[..., : self.config.latent_size]
        latent = kept.astype(jnp.float32) if self.config.latent else None
        return Trunk(features=features, latent=latent, cache=cache)


@struct.dataclass
class LinearHead:
    """logits = features W + b, accumulated in float32."""

    kernel: Array
    bias: Array

    def __call__(self, features_ND: Array) -> Array:
        """[N, D] to [N, V], float32."""
        kind = features_ND.dtype
        wide = jnp.promote_types(kind, jnp.float32)
        return linear(features_ND, self.kernel.astype(kind), wide) + self.bias


@struct.dataclass
class BoundDiT:
    """A DiT with its parameters; a pytree whose leaves are those parameters."""

    params: Any
    config: DiT = struct.field(pytree_node=False)

    @property
    def head(self) -> LinearHead:
        """The vocabulary projection."""
        return LinearHead(**self.params["head"])

    @property
    def heads(self) -> dict[str, LinearHead]:
        """No projection but that of the vocabulary."""
        return {}

    @property
    def timed(self) -> bool:
        """Whether the network is told the time."""
        return self.config.time_conditioning

    @property
    def hollow(self) -> bool:
        """It sees its own place."""
        return False

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`; `key` holds a key per example, [B]."""
        config = self.config
        z, cond = config.shown(z, cond)
        if cond.attend is not None:
            cond.attend.check()
        if h is not None and not config.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if cond.label is not None and not config.num_classes:
            raise ValueError("this network takes no class label (model.num_classes is 0)")
        if cond.unit is not None or cond.told is not None:
            raise ValueError("this network has no patches (model: blt has); no unit, no told")
        if config.time_conditioning and cond.clock is None:
            raise ValueError("this network is conditioned on time; cond.clock is missing")
        if cache is not None and not config.causal:
            raise ValueError("a bidirectional network keeps no cache (model.causal is False)")
        if cache is not None:
            if cond.segment is not None or cond.attend is not None:
                raise ValueError(
                    "a cache holds one document, read from left to right; cond.segment and "
                    "cond.attend do not apply"
                )
            if cond.position is None:
                cond = cond._replace(position=cache.seen[0] + jnp.arange(z.shape[1]))
        digits = config.tokens.digits
        if digits > 1:
            z, cond, h = by_digit(z, cond, h, digits)
        out: Any = Network(config).apply({"params": self.params["trunk"]}, z, cond, h, key, cache)
        return out if digits == 1 else by_token(out, digits)

    def parts(self, z: Array, h: Array) -> tuple[Array, Array]:
        """E(z) and LayerNorm(h), whose sum enters the first block; float32 [B, L, D] both."""
        out: Any = Network(self.config).apply(
            {"params": self.params["trunk"]}, z, h, method=Network.parts
        )
        return out

    def cache(self, batch: int, length: int) -> layers.Cache:
        """An empty cache for `length` positions of a causal network."""
        config = self.config
        if not config.causal:
            raise UserError(
                "a bidirectional network keeps no cache (model.causal is False); step next_token "
                "samples models trained with method=ar"
            )
        shape = (config.depth, batch, length, config.heads, config.width // config.heads)
        empty = jnp.zeros(shape, jnp.dtype(config.dtype))
        return layers.Cache(empty, empty, jnp.zeros(config.depth, jnp.int32))

    def latent(self, batch: int, length: int) -> Array | None:
        """Zeros [B, L, K] float32, of m digits [B, L, m, K], or None."""
        if not self.config.latent:
            return None
        m = self.config.tokens.digits
        shape = (batch, length, *((m,) if m > 1 else ()), self.config.latent_size)
        return jnp.zeros(shape, jnp.float32)


@register("model", "dit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DiT:
    """Diffusion transformer with a loophole.

    `causal` without `adaln` is the autoregressive network of the MDLM and Duo references. `remat`,
    `chunks` and `unroll` change no result.

    Attributes:
      width: channels D of the residual stream.
      depth: blocks, one after the other.
      heads: of attention, which divide the width.
      cond_width: channels of what the adaLN is told.
      mlp_ratio: hidden units of a block's MLP, as a multiple of the width.
      dropout: share of activations dropped in training.
      latent: opens the loophole: channels of the last block's output are carried, normalised and
        added to as many of the embedding (two parameters each, zero at first).
      latent_width: how many channels are carried, the first ones; 0 = all.
      time_conditioning: tell the adaLN sigma(t); False feeds 0, as MDLM and LDDM-M do.
      num_classes: labels that the network may be told; 0 = none.
      dtype: of activations: float32, bfloat16 or float64.
      remat: what a block keeps for the backward pass: none (all of it), dots or full (nothing).
      chunks: pieces at most in which a block walks its batch; what it does not keep is as much
        smaller.
      unroll: blocks side by side in the program: a CPU saves the stacking of what they keep, and
        compiles longer.
      attention: the kernel, such as plain.
      causal: a position attends to itself and to those before it only.
      adaln: modulate by time and class; False leaves all conditioning out.
      input: how a state enters: tokens by a table, or linear for points.
      torus: side of the periodic square lattice whose raster the positions are; 0 = a line.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    cond_width: int = 128
    mlp_ratio: int = 4
    dropout: float = 0.0
    latent: bool = True
    latent_width: int = 0
    time_conditioning: bool = False
    num_classes: int = 0
    dtype: str = "float32"
    remat: str = "none"
    chunks: int = 1
    unroll: int = 1
    attention: str = "plain"
    causal: bool = False
    adaln: bool = True
    input: Any = component("input", Tokens)
    torus: int = 0
    tokens: TokenSpace = runtime()

    def __post_init__(self):
        at_least_one(self, "width", "depth", "heads", "cond_width", "mlp_ratio", "chunks", "unroll")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1)")
        if not 0 <= self.latent_width <= self.width:
            raise ValueError(
                f"latent_width is {self.latent_width}; it must lie between 1 and the width "
                f"{self.width}, or be 0 (as wide as the network)"
            )
        if self.latent_width and not self.latent:
            raise ValueError("latent_width without a latent (latent is False); set it 0")
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}; it must be 0 (none) or more")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} must be a multiple of twice the {self.heads} heads (rotary)"
            )
        if self.torus < 0 or (self.torus and self.width % (4 * self.heads)):
            raise ValueError(
                f"torus is {self.torus} with width {self.width} and {self.heads} heads; it must be "
                "0 or a side, and then the width a multiple of four times the heads"
            )
        if self.remat not in REMAT:
            raise ValueError(f"remat {self.remat!r} is not one of {', '.join(REMAT)}")
        if not self.adaln and (self.time_conditioning or self.num_classes):
            raise ValueError("adaln False takes no conditioning; time_conditioning or num_classes")
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"dtype {self.dtype!r} is not one of float32, bfloat16, float64")
        kernel(self.attention)

    @property
    def latent_size(self) -> int:
        """K, channels of the carried latent."""
        return self.latent_width or self.width

    def shown(self, z: Any, cond: Cond) -> tuple[Any, Cond]:
        """State and condition as the layers take them.

        Raises:
          ValueError: for a leaf that there is no input for.
        """
        if cond.signal is not None:
            raise ValueError("this network takes no signal (model=signal_dit does)")
        return z, cond

    def told(self, cond: Cond, batch: int) -> Any:
        """What the time embedding reads, [B] or [B, L]."""
        return cond.clock if self.time_conditioning else jnp.zeros(batch)

    def embedding(self) -> nn.Module:
        """The layer by which a state enters."""
        return self.input.module(self.tokens.size, self.width)

    def example(self) -> Any:
        """A state of one row that it is made with."""
        return self.input.example(self.tokens.size)

    @property
    def points(self) -> bool:
        """Whether the states that enter are points."""
        return self.input.points

    def init(self, key: Array) -> Any:
        """{"trunk": ..., "head": {"kernel", "bias"}}; the head starts at zero."""
        z = self.example()
        cond = Cond(clock=jnp.zeros(1), label=jnp.zeros(1, jnp.int32) if self.num_classes else None)
        trunk: Any = Network(self).init(key, z, cond, None, None)["params"]
        head = {
            "kernel": jnp.zeros((self.width, self.tokens.size)),
            "bias": jnp.zeros(self.tokens.size),
        }
        return {"trunk": trunk, "head": head}

    def bind(self, params: Any) -> BoundDiT:
        """The denoiser with these parameters."""
        return BoundDiT(params=params, config=self)

    def operations(self, length: int) -> dict[str, float]:
        """Of one position, forward: trunk 2 (12 D^2 + 2 L D) a layer, head 2 D V; of each digit.

        Matrix products of the layers (qkv 3, out 1, MLP 2 x ratio, in units of D^2), scores and
        values 2 L D each; the adaLN products are per example and left out.
        """
        d, m = self.width, self.tokens.digits
        layer = 2 * d * d * (4 + 2 * self.mlp_ratio) + 4 * length * m * d
        return {"trunk": m * self.depth * layer, "head": m * 2 * d * self.tokens.size}

    def axes(self) -> Any:
        """Logical axes of every parameter; the leading axis of a block is its layer."""
        norm, layer = {"norm": {"scale": ("width",)}}, ("layer",)
        stacked = {
            "qkv": {"kernel": ("width", "heads")},
            "out": {"kernel": ("heads", "width")},
            "mlp_in": {"kernel": ("width", "mlp"), "bias": ("mlp",)},
            "mlp_out": {"kernel": ("mlp", "width"), "bias": ("width",)},
            "norm1": norm,
            "norm2": norm,
        }
        is_axes = lambda a: isinstance(a, tuple)
        trunk: dict[str, Any] = {"embed": self.input.axes(), "final_norm": norm}
        if self.adaln:
            modulation = {"kernel": ("cond", "modulation"), "bias": ("modulation",)}
            stacked["adaln"] = trunk["final_adaln"] = modulation
            trunk["time"] = {
                "in": {"kernel": ("features", "cond"), "bias": ("cond",)},
                "out": {"kernel": ("cond", "cond"), "bias": ("cond",)},
            }
        trunk["blocks"] = jax.tree.map(lambda a: layer + a, stacked, is_leaf=is_axes)
        if self.num_classes:
            trunk["classes"] = {"embedding": ("classes", "cond")}
        if self.latent:
            # A narrower one need not divide as the width does; it is small, and whole everywhere.
            own = ("width",) if self.latent_size == self.width else ("latent",)
            trunk["latent_norm"] = {"norm": {"scale": own, "bias": own}}
        head = {"kernel": ("width", "vocabulary"), "bias": ("vocabulary",)}
        return {"trunk": trunk, "head": head}
