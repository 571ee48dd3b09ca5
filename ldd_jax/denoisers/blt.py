"""Bytes in patches: light layers by byte, a DiT by patch (BLT, arXiv 2412.09871), with a latent.

Bidirectional it is a network of masked diffusion over bytes, for every rule that there is; causal
it is the paper's left-to-right model, whose bytes read the patch before their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError, at_least_one
from ldd_jax.core.registry import register, runtime
from ldd_jax.core.types import Array, Cond, TokenSpace, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.attention import kernel
from ldd_jax.denoisers.linears import QKV
from ldd_jax.denoisers.patch_network import PatchNetwork
from ldd_jax.denoisers.patched import window_keys
from ldd_jax.denoisers.tokens import BoundTokens, TokenModel


class Read(NamedTuple):
    """What a left-to-right network has read: tokens [B, L], the first `seen` of them."""

    tokens: Array
    seen: Array


@struct.dataclass
class BoundBlt(BoundTokens):
    """A network over patches with its parameters."""

    config: Blt = struct.field(pytree_node=False)

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`; there is no dropout, and a cache saves no work."""
        del key
        f = self.config
        if cond.label is not None or cond.segment is not None or cond.position is not None:
            raise UserError(
                "a network over patches takes no class, padding, packed documents or positions"
            )
        if cond.attend is not None:
            raise UserError("a network over patches sees what its patches say; no attend")
        if h is not None and not f.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if cond.signal is not None:
            raise ValueError("this network takes no signal (model=signal_dit does)")
        if (cond.told is not None) != f.inner:
            raise UserError(
                "this network reads bytes left to right inside a patch (model.inner): train it by "
                "objective patch_nelbo, sample it by step patch_ancestral"
                if f.inner
                else "this network makes the bytes of a patch side by side (model.inner is False)"
            )
        tokens = z if cache is None else jax.lax.dynamic_update_slice(
            cache.tokens, z.astype(cache.tokens.dtype), (0, cache.seen)
        )  # fmt: skip
        unit = self.units(tokens.shape, cond.unit)
        params = {"params": self.params["trunk"]}
        out: Any = PatchNetwork(f).apply(params, tokens, unit, h, cond.told)
        if cache is None:
            return out
        place = lambda a: jax.lax.dynamic_slice_in_dim(a, cache.seen, z.shape[1], axis=1)
        return out._replace(
            features=place(out.features), cache=Read(tokens, cache.seen + z.shape[1])
        )

    def units(self, shape: tuple[int, ...], given: Array | None) -> Array:
        """Patch of each position, [B, L].

        Args:
          shape: (B, L).
          given: of the data; None = every `patch` positions.

        Raises:
          UserError: where they have to be given and are not, or the other way round.
        """
        size = self.config.patch
        if (given is None) != (size > 0):
            raise UserError(
                "this network's patches come from the data (model.patch is 0), and here are none"
                if given is None
                else f"this network's patches are every {size} tokens; set model.patch to 0 for "
                "those of the data"
            )
        if given is not None:
            return given
        return jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32) // size, shape)

    def latent(self, batch: int, length: int) -> Array | None:
        """Zeros [B, P, D], or None."""
        if not self.config.latent:
            return None
        shape = (batch, self.config.count(length), self.config.width)
        return jnp.zeros(shape, layers.carried_type(self.config.dtype))

    def cache(self, batch: int, length: int) -> Read:
        """Nothing read yet; a call reads all again, as a new byte changes its patch."""
        if not self.config.causal:
            return super().cache(batch, length)
        return Read(jnp.zeros((batch, length), jnp.int32), jnp.zeros((), jnp.int32))


@register("model", "blt")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Blt(TokenModel):
    """Byte-latent transformer: local blocks of width d by byte, between them a DiT over patches.

    The latent is that of the DiT over patches, [B, P, D]. One row of it stands for a whole patch:
    a byte costs P / L of a DiT's operations, and the local blocks.

    Attributes:
      width: channels D of a patch.
      depth: blocks over patches.
      heads: of attention everywhere; twice their number divides width and local width.
      mlp_ratio: hidden units of an MLP, as a multiple of its width.
      local_width: channels d of a byte; 0 = half the width.
      encoder: blocks by byte before the patches.
      decoder: blocks by byte after them.
      window: bytes to either side that a byte attends to.
      views: pieces of a patch's vector that its bytes attend to; they divide the width.
      ngrams: sizes of hashed n-grams, whose embeddings are added to the bytes'.
      buckets: of each n-gram table.
      patch: bytes of every patch; 0 = the data say where patches are (`data.patches`).
      patches: P, rows of the DiT, with patch 0; bytes beyond join the last patch.
      latent: opens the loophole, by patch.
      time_conditioning: False; masked diffusion needs none.
      causal: left to right; a byte reads the patches before its own.
      inner: the bytes of a patch are made left to right, each knowing those before it in its patch
        (`Cond.told`), so that whole patches may be masked with an exact bound.
      dtype: of activations: float32, bfloat16 or float64.
      attention: the kernel over patches, such as plain.
      unroll: blocks over patches side by side in the program.
      vocab_multiple: the token table and the projection to the vocabulary get rows of zeros up to
        a multiple of it, which nobody sees and a mesh divides.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 4
    local_width: int = 0
    encoder: int = 1
    decoder: int = 1
    window: int = 8
    views: int = 2
    ngrams: tuple[int, ...] = (3, 4)
    buckets: int = 4096
    patch: int = 4
    patches: int = 0
    latent: bool = False
    time_conditioning: bool = False
    causal: bool = False
    inner: bool = False
    dtype: str = "float32"
    attention: str = "plain"
    unroll: int = 1
    vocab_multiple: int = 1
    tokens: TokenSpace = runtime()

    bound = BoundBlt
    cut = {
        QKV: ("width", None, "heads", None),
        "out": ("heads", "width"),
        "mlp_in": ("width", "mlp"),
        "mlp_out": ("mlp", "width"),
    }
    num_classes = 0
    dropout = 0.0
    points = False

    def __post_init__(self):
        at_least_one(self, "width", "depth", "heads", "mlp_ratio", "window", "views", "buckets")
        at_least_one(self, "unroll", "vocab_multiple")
        if (self.patch > 0) == (self.patches > 0) or min(self.patch, self.patches) < 0:
            raise ValueError(
                f"patch is {self.patch} and patches {self.patches}; give the bytes of a patch, or "
                "0 and how many patches a row has at most"
            )
        for name in ("encoder", "decoder", "local_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if any(not 2 <= size <= 16 for size in self.ngrams):
            raise ValueError(f"ngrams is {self.ngrams}; sizes are 2 to 16")
        for name, width in (("width", self.width), ("local width", self.local)):
            if not width or width % (2 * self.heads):
                raise ValueError(
                    f"{name} {width} must be a multiple of twice the {self.heads} heads (rotary)"
                )
        if self.width % self.views:
            raise ValueError(f"views is {self.views}; it must divide the width {self.width}")
        if self.inner and self.tokens is not None and self.tokens.mask is None:
            raise ValueError("inner stands for masked diffusion; use process masked")
        if self.causal and self.inner:
            raise ValueError("a causal network reads left to right everywhere; leave inner off")
        if self.time_conditioning:
            raise ValueError("a network over patches is not told the time (time_conditioning)")
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"dtype {self.dtype!r} is not one of float32, bfloat16, float64")
        kernel(self.attention)

    @property
    def local(self) -> int:
        """Channels d of a byte."""
        return self.local_width or self.width // 2

    def count(self, length: int) -> int:
        """P, rows of the DiT over a row of `length` bytes."""
        return -(-length // self.patch) if self.patch else self.patches

    @property
    def features(self) -> int:
        """Channels of a byte."""
        return self.local

    def new_trunk(self, key: Array) -> Any:
        """Of the modules of `patch_network`."""
        z = jnp.zeros((1, 2), jnp.int32)
        return PatchNetwork(self).init(key, z, z, None)["params"]

    def divides(self, names: list[str]) -> bool:
        """In blocks alone: what goes between bytes and patches is whole."""
        return "blocks" in names or any("coder_" in n for n in names)

    def operations(self, length: int) -> dict[str, float]:
        """Of one byte, forward: those of `trunk_operations`, and 2 d V of the head."""
        return {
            "trunk": self.trunk_operations(length),
            "head": 2 * self.local * self.tokens.size,
        }

    def trunk_operations(self, length: int) -> float:
        """As the program makes them, with all P rows of the DiT.

        Local block 2 d^2 (4 + 2 ratio) + 4 d keys; by patch, P / L of depth (2 D^2 (4 + 2 ratio) +
        4 P D); up 4 d^2 + 2 d a byte and 2 d^2 + 4 d D a patch; down 4 d^2 + 4 d views a byte and
        4 d D a patch.
        """
        d, wide, r = self.local, self.width, self.mlp_ratio
        count = self.count(length)
        block = lambda causal: (
            2 * d * d * (4 + 2 * r) + 4 * d * window_keys(length, self.window, causal)
        )
        patch = self.depth * (2 * wide * wide * (4 + 2 * r) + 4 * count * wide)
        patch += 2 * d * d + 8 * d * wide + 4 * d * wide / count  # the row before all patches
        byte = self.encoder * block(self.causal)
        byte += self.decoder * block(self.causal or self.inner)
        byte += 8 * d * d + 2 * d + 4 * d * self.views
        return byte + count / length * patch


def equal_size(model: Blt, length: int, vocabulary: int) -> dict[str, int]:
    """Width and heads of a DiT by byte, as deep, with about as many operations a byte.

    2 (12 D^2 + 2 L D) a block and 2 D V for the head; with fewer heads where their number leaves
    no width within 2 %.

    Args:
      model: the network over patches.
      length: bytes of a row.
      vocabulary: V, states of a byte.
    """
    wanted = model.trunk_operations(length) + 2 * model.local * vocabulary
    cost = lambda d: model.depth * (24 * d * d + 4 * length * d) + 2 * d * vocabulary
    error = lambda d: abs(cost(d) / wanted - 1)
    found = []
    for heads in range(model.heads, 0, -1):
        best = min(range(2 * heads, 1 << 15, 2 * heads), key=error)
        found.append((error(best), best, heads))
        if error(best) < 0.02:
            return {"width": best, "heads": heads}
    _, best, heads = min(found)
    return {"width": best, "heads": heads}
