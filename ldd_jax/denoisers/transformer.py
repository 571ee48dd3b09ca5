"""The modules of the diffusion transformer: its trunk, and the projection to the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.products import linear
from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.carry import entering
from ldd_jax.denoisers.stack import REMAT, again, stacked, through

if TYPE_CHECKING:
    from ldd_jax.denoisers.dit import DiT


class Network(nn.Module):
    """Everything but the vocabulary projection."""

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
            self.latent_norm = c.carry.module(c.width, c.tokens)
        stack = stacked(layers.Block, c.depth, c.unroll, self.is_initializing())
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
        """E(z) and what is carried, float32 [B, L, D]."""
        x, fused = self.parts(z, h)
        return x if fused is None else x + fused

    def parts(self, z: Any, h: Array | None) -> tuple[Array, Array | None]:
        """The two terms, [B, L, D] each; None without a latent."""
        c, x = self.config, self.embed(z)
        return x, entering(c, self.latent_norm, z, x, h) if c.latent else None

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
        f = self.config
        how: Any = dict(chunks=f.chunks, causal=f.causal)
        x, cache = through(self.blocks, x, c, place, cond, keys_B, cache, block=f.block, **how)
        if self.config.loops > 1:
            x = again(self, x, c, place, cond, keys_B, **how)
        features = self.final_norm(x)
        if c is not None:
            shift, scale = jnp.split(layers.spread(self.final_adaln(c.astype(dtype))), 2, axis=-1)
            features = layers.modulate(features, shift, scale)
        kept = x[..., : self.config.latent_size]
        latent = kept.astype(self.config.latent_type) if self.config.latent else None
        return Trunk(features=features, latent=latent, cache=cache)


@struct.dataclass
class LinearHead:
    """logits = features W + b, accumulated in float32; the first `size` of them, 0 = all."""

    kernel: Array
    bias: Array
    size: int = struct.field(pytree_node=False, default=0)

    def __call__(self, features_ND: Array) -> Array:
        """[N, D] to [N, V], float32."""
        kind = features_ND.dtype
        wide = jnp.promote_types(kind, jnp.float32)
        logits = linear(features_ND, self.kernel.astype(kind), wide) + self.bias
        return logits[..., : self.size] if self.size else logits
