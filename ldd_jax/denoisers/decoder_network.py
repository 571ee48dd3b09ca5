"""The modules of a pretrained decoder: its trunk, and what all of its blocks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.carry import entering
from ldd_jax.denoisers.linears import Product, normal
from ldd_jax.denoisers.stack import REMAT, Walk, stacked, through

if TYPE_CHECKING:
    from ldd_jax.denoisers.decoder import Decoder


class DecoderBlock(Walk):
    """A block whose linear layers may have adapters; `dtype` and `adapter` are its own fields."""

    def product(self, features: int | tuple[int, ...], name: str, bias: bool) -> Product:
        """A linear layer.

        Args:
          features: outputs; several numbers = as many axes.
          name: of the parameters, which the adapter knows it by.
          bias: whether it has one.
        """
        return Product(features, self.dtype, bias, self.adapter, name=name)


class Network(nn.Module):
    """Everything but the vocabulary projection."""

    config: Decoder

    def setup(self):
        """Submodules; blocks, final norm and positions are the config's."""
        c = self.config
        self.embed = layers.Embedding(c.tokens.size, c.width, normal, c.table_rows)
        if c.learned_positions:
            self.positions = layers.Embedding(c.learned_positions, c.width, normal)
        if c.time_conditioning:
            self.time = layers.TimeEmbedding(c.width)
            self.time_out = layers.zero_dense(c.width, None, jnp.float32)
        if c.latent:
            self.latent_norm = c.carry.module(c.width, c.tokens)
        block, fields = c.layer()
        stack = stacked(block, c.depth, c.unroll, self.is_initializing())
        self.blocks = stack(
            dtype=jnp.dtype(c.dtype), remat=REMAT[c.remat], adapter=c.adapter, **fields
        )
        self.final_norm = c.norm()

    def parts(self, z: Array, h: Array | None) -> tuple[Array, Array | None]:
        """E(z) and what is carried, [B, L, D] each; None without a latent."""
        c, x = self.config, self.embed(z)
        return x, entering(c, self.latent_norm, z, x, h) if c.latent else None

    def __call__(self, z: Array, cond: Cond, h: Array | None, cache: Any = None) -> Trunk:
        """Run the trunk on the rows that enter it; with a cache, on those that follow it.

        Args:
          z: tokens, [B, n].
          cond: what the network is told beside them.
          h: latent that enters at each row, [B, n, K]; None = zeros.
          cache: keys and values of the positions before; None = all are here.
        """
        c = self.config
        x, fused = self.parts(z, h)
        x = x if fused is None else x + fused
        position = jnp.arange(x.shape[1]) if cond.position is None else cond.position
        if c.learned_positions:
            x = x + self.positions(position)
        if c.time_conditioning:
            x = x + layers.spread(self.time_out(nn.silu(self.time(cond.clock))))
        x, cache = through(
            self.blocks,
            x.astype(jnp.dtype(c.dtype)),
            None,
            c.place(position),
            cond,
            None,
            cache,
            chunks=c.chunks,
            causal=c.causal,
            block=c.block,
        )
        latent = x.astype(c.latent_type) if c.latent else None
        return Trunk(features=self.final_norm(x), latent=latent, cache=cache)
