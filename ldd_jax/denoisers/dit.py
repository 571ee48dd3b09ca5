"""Diffusion transformer with a loophole: E(z_t) + LayerNorm(h) in, (features, h) out.

LDDM, arXiv 2510.19304, section 4; reference network of MDLM, Duo and SEDD otherwise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.registry import component, register, runtime
from ldd_jax.core.types import Array, Cond, TokenSpace
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.attention import kernel
from ldd_jax.denoisers.carry import Hidden, check_carried
from ldd_jax.denoisers.dit_bound import BoundDiT
from ldd_jax.denoisers.inputs import Tokens
from ldd_jax.denoisers.linears import QKV
from ldd_jax.denoisers.stack import REMAT, check_block
from ldd_jax.denoisers.tokens import TokenModel
from ldd_jax.denoisers.transformer import Network


@register("model", "dit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DiT(TokenModel):
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
      carry: what a call leaves to the next: h, or an embedding of its prediction.
      carry_at: where it enters: at all positions, or masked ones only.
      loops: times that a call goes through the blocks, one after the other.
      least_loops: with objective.draw_loops, an update goes through them so often at least.
      time_conditioning: tell the adaLN sigma(t); False feeds 0, as MDLM and LDDM-M do.
      num_classes: labels that the network may be told; 0 = none.
      dtype: of activations: float32, bfloat16 or float64.
      param_dtype: of parameters, float32 or bfloat16, which an update rounds at random.
      remat: what a block keeps for the backward pass: none (all of it), dots or full (nothing).
      chunks: pieces at most in which a block walks its batch; what it does not keep is as much
        smaller.
      unroll: blocks side by side in the program: a CPU saves the stacking of what they keep, and
        compiles longer.
      attention: the kernel, such as plain.
      causal: a position attends to itself and to those before it only.
      block: a position attends to its own block of so many and to those before it only, as block
        diffusion trains it (arXiv 2503.09573); 0 = there are none.
      adaln: modulate by time and class; False leaves all conditioning out.
      input: how a state enters: tokens by a table, or linear for points.
      torus: side of the periodic square lattice whose raster the positions are; 0 = a line.
      vocab_multiple: the token table and the projection to the vocabulary get rows of zeros up to
        a multiple of it, which nobody sees and a mesh divides.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    cond_width: int = 128
    mlp_ratio: int = 4
    dropout: float = 0.0
    latent: bool = True
    latent_width: int = 0
    carry: Any = component("carry", Hidden)
    carry_at: str = "all"
    loops: int = 1
    least_loops: int = 1
    time_conditioning: bool = False
    num_classes: int = 0
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    chunks: int = 1
    unroll: int = 1
    attention: str = "plain"
    causal: bool = False
    block: int = 0
    adaln: bool = True
    input: Any = component("input", Tokens)
    torus: int = 0
    vocab_multiple: int = 1
    tokens: TokenSpace = runtime()

    bound = BoundDiT

    def __post_init__(self):
        at_least_one(self, "width", "depth", "heads", "cond_width", "mlp_ratio", "chunks", "unroll")
        at_least_one(self, "loops", "least_loops", "vocab_multiple")
        if self.least_loops > self.loops or ((self.causal or self.block) and self.loops > 1):
            raise ValueError(
                f"loops is {self.loops}, least_loops {self.least_loops}, causal {self.causal}, "
                f"block {self.block}; the least are at most the loops, and a causal network has one"
                ", one by blocks too"
            )
        check_carried(self)
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
        check_block(self.block, causal=self.causal)
        if self.block and self.tokens is not None and self.tokens.digits > 1:
            raise ValueError("block is in tokens, and these are written in digits; leave it 0")
        if not self.adaln and (self.time_conditioning or self.num_classes):
            raise ValueError("adaln False takes no conditioning; time_conditioning or num_classes")
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"dtype {self.dtype!r} is not one of float32, bfloat16, float64")
        if self.param_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"param_dtype {self.param_dtype!r} is not float32 or bfloat16")
        kernel(self.attention)

    @property
    def latent_size(self) -> int:
        """K, channels of the carried latent."""
        return self.carry.channels(self.width, self.latent_width)

    @property
    def latent_type(self) -> Any:
        """Of the carried latent: soft signals are made in float32."""
        return layers.carried_type("float32" if self.carry.soft else self.dtype)

    @property
    def by_token(self) -> bool:
        """Whether a state is tokens and nothing else."""
        return True

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

    def embedding(self) -> Any:
        """The layer by which a state enters."""
        return self.input.module(self.tokens.size, self.width, self.table_rows)

    def example(self) -> Any:
        """A state of one row that it is made with."""
        return self.input.example(self.tokens.size)

    @property
    def points(self) -> bool:
        """Whether the states that enter are points."""
        return self.input.points

    def new_trunk(self, key: Array) -> Any:
        """Of the modules of `transformer`."""
        cond = Cond(clock=jnp.zeros(1), label=jnp.zeros(1, jnp.int32) if self.num_classes else None)
        return Network(self).init(key, self.example(), cond, None, None)["params"]

    def init(self, key: Array) -> Any:
        """{"trunk": ..., "head": {"kernel", "bias"}}; the head starts at zero."""
        kind = jnp.dtype(self.param_dtype)
        cast = lambda a: a.astype(kind) if a.dtype == jnp.float32 else a
        return jax.tree.map(cast, super().init(key))

    def operations(self, length: int) -> dict[str, float]:
        """Of one position, forward: trunk 2 (12 D^2 + 2 L D) a layer, head 2 D V; of each digit.

        Matrix products of the layers (qkv 3, out 1, MLP 2 x ratio, in units of D^2), scores and
        values 2 L D each; the adaLN products are per example and left out.
        """
        d, m = self.width, self.tokens.digits
        layer = 2 * d * d * (4 + 2 * self.mlp_ratio) + 4 * length * m * d
        read = self.carry.reading(d) if self.latent else 0.0
        found = {
            "trunk": m * self.loops * self.depth * layer + read,
            "head": m * 2 * d * self.tokens.size,
        }
        made = self.carry.operations(d, self.tokens.size) if self.latent else 0.0
        return found | ({"carry": made} if made else {})

    def axes(self) -> Any:
        """Logical axes of every parameter; the leading axis of a block is its layer."""
        norm, layer = {"norm": {"scale": ("width",)}}, ("layer",)
        stacked = {
            QKV: {"kernel": ("width", None, "heads", None)},
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
            read = self.carry.axes(own)
            trunk |= {"latent_norm": read} if read else {}
        head = {"kernel": ("width", "vocabulary"), "bias": ("vocabulary",)}
        return {"trunk": trunk, "head": head}
