"""The modules of a network over patches: up from bytes, across patches, and down again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.logical import constrain
from ldd_jax.core.types import Array, Attend, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.patched import LocalBlock, Pool, Unpool, by_patch, ngram_hashes

if TYPE_CHECKING:
    from ldd_jax.denoisers.blt import Blt


class Layer(nn.Module):
    """One block over patches, for a scan over layers."""

    config: Blt

    @nn.compact
    def __call__(self, x, live):
        """[B, P, D]; patches that hold no byte (`live` 0) see and are seen by none that does."""
        f = self.config
        block = layers.Block(
            width=f.width,
            heads=f.heads,
            mlp_ratio=f.mlp_ratio,
            dropout=0.0,
            dtype=jnp.dtype(f.dtype),
            attention=f.attention,
            adaln=False,
            name="block",
        )
        attend = Attend("causal" if f.causal else "full")
        return block.one(x, 0, None, jnp.arange(x.shape[1]), live, attend, None, None)[0], None


class PatchNetwork(nn.Module):
    """Everything but the vocabulary projection."""

    config: Blt

    @nn.compact
    def __call__(self, z: Array, unit: Array, h: Array | None, told: Array | None = None) -> Trunk:
        """Up to the patches, across them, and down again.

        Args:
          z: tokens [B, L]; of a causal network each position holds the token before it.
          unit: patch of each position, [B, L], of the token that is predicted there.
          h: latent of the pass before, [B, P, D]; None = zeros.
          told: of an `inner` network, what it reads inside a patch: the bytes before each, [B, L].
        """
        f = self.config
        dtype, count = jnp.dtype(f.dtype), f.count(z.shape[1])
        unit = jnp.minimum(unit, count - 1)
        # The byte that stands at a place: in a left-to-right network, the one before.
        holds = jnp.pad(unit[:, :-1], ((0, 0), (1, 0))) if f.causal else unit
        reads = unit - 1 if f.causal else unit
        embed = layers.Embedding(f.tokens.size, f.local, padded=f.table_rows, name="embed")
        x = embed(z)
        for size in f.ngrams:
            table = layers.Embedding(f.buckets, f.local, name=f"ngram_{size}")
            x = x + table(ngram_hashes(z, size, f.buckets))
        x = constrain(x.astype(dtype), "batch", "length", None)
        x = self.locally(x, "encoder", f.encoder, f.causal)
        y = Pool(f.width, f.heads, dtype, name="pool")(x, holds, count)
        if f.latent:
            none = jnp.zeros(y.shape, jnp.float32)
            fused = layers.LatentNorm(name="latent_norm")(none if h is None else h)
            y = y + fused.astype(dtype)
        one = jnp.ones(holds.shape, jnp.int32)
        live = jnp.minimum(by_patch(jax.ops.segment_sum, one, holds, count), 1)
        blocks = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=f.depth,
            unroll=min(f.unroll, f.depth),
            check_constancy_invariants=self.is_initializing(),
        )
        y, _ = blocks(f, name="blocks")(y, live)
        latent = y.astype(layers.carried_type(f.dtype)) if f.latent else None
        y = layers.Norm(name="latent_final_norm")(y)
        x = x + Unpool(f.heads, f.views, dtype, name="unpool")(x, y, reads)
        if told is not None:
            before = jnp.pad(told[:, :-1], ((0, 0), (1, 0)))
            inside = jnp.pad(unit[:, :-1], ((0, 0), (1, 0)), constant_values=-1) == unit
            assert f.tokens.mask is not None
            x = x + embed(jnp.where(inside, before, f.tokens.mask)).astype(dtype)
        x = self.locally(x, "decoder", f.decoder, f.causal or f.inner, unit if f.inner else None)
        return Trunk(features=layers.Norm(name="final_norm")(x), latent=latent)

    def locally(
        self, x: Array, name: str, depth: int, causal: bool, unit: Array | None = None
    ) -> Array:
        """`depth` blocks by byte.

        Args:
          x: bytes, [B, L, d].
          name: of their parameters.
          depth: number of blocks.
          causal: a byte sees those before.
          unit: and of its own patch only; None = of all.
        """
        f = self.config
        for i in range(depth):
            kind = (f.local, f.heads, f.mlp_ratio, f.window, causal, jnp.dtype(f.dtype))
            x = LocalBlock(*kind, name=f"{name}_{i}")(x, unit)
        return x
