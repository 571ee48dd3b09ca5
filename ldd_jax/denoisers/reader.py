"""A left-to-right network of the tokens of a text that is told the vectors the text stands as."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.denoisers.caches import Cache
from ldd_jax.denoisers.dit_bound import BoundDiT
from ldd_jax.denoisers.inputs import Tokens
from ldd_jax.denoisers.transformer import LinearHead

VECTORS, TOKENS = "vectors", "tokens"


class Prefix(nn.Module):
    """Rows of vectors, of tokens, or of tokens after vectors; float32."""

    states: int
    width: int
    vectors: int
    size: int
    padded: int = 0

    @nn.compact
    def __call__(self, z: dict[str, Array]) -> Array:
        """{"vectors": [B, Q, C], "tokens": [B, L]}, either or both, to [B, Q + L, D]."""
        rows = []
        if VECTORS in z:
            own = self.param("slot", layers.bias_init(self.width), (self.vectors, self.width))
            rows.append(layers.dense(self.width, self.size, VECTORS, jnp.float32)(z[VECTORS]) + own)
        if TOKENS in z:
            table = layers.Embedding(self.states, self.width, padded=self.padded, name=TOKENS)
            rows.append(table(z[TOKENS]))
        return jnp.concatenate(rows, axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefixed:
    """How the decoder's rows enter: a part of a network, as those of `denoisers.inputs`."""

    vectors: int
    size: int
    points = False

    def module(self, states: int, width: int, padded: int = 0) -> nn.Module:
        """The layer; `states`, `width` and `padded` are those of `inputs.Tokens`."""
        return Prefix(states, width, self.vectors, self.size, padded)

    def example(self, states: int) -> dict[str, Array]:
        """A state of one row."""
        del states
        return {
            VECTORS: jnp.zeros((1, self.vectors, self.size)),
            TOKENS: jnp.zeros((1, 2), jnp.int32),
        }

    def axes(self) -> dict[str, Any]:
        """Logical axes of its parameters."""
        enter = {"kernel": ("features", "width"), "bias": ("width",)}
        return {"slot": (None, "width"), VECTORS: enter, TOKENS: Tokens().axes()}


@struct.dataclass
class Reader(BoundNetwork):
    """The decoder told the vectors of a text: a left-to-right network of its tokens."""

    network: BoundDiT
    vectors: Array

    @property
    def head(self) -> LinearHead:
        """The vocabulary projection."""
        return self.network.head

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`: a position sees the vectors and the tokens up to its own."""
        alone(cond._replace(clock=None))
        if h is not None:
            raise ValueError("the decoder takes no latent")
        if cache is not None:
            place = cache.begin + jnp.arange(z.shape[1])
            return self.network.trunk({TOKENS: z}, Cond(position=place), key=key, cache=cache)
        rows = {VECTORS: self.vectors, TOKENS: z}
        out = self.network.trunk(rows, Cond(), key=key)
        return out._replace(features=out.features[:, self.vectors.shape[1] :])

    def cache(self, batch: int, length: int) -> Cache:
        """With the vectors read, and room for `length` tokens."""
        count = self.vectors.shape[1]
        empty = self.network.cache(batch, count + length)
        cond = Cond(position=jnp.arange(count))
        return self.network.trunk({VECTORS: self.vectors}, cond, cache=empty).cache


def alone(cond: Cond) -> None:
    """Refuse what a text is told beside its tokens.

    Raises:
      UserError: for any of it.
    """
    if any(leaf is not None for leaf in cond):
        raise UserError(
            "a text is compressed whole and by itself: rows with padding, packed documents, "
            "classes, patches or a signal do not go with model compressor"
        )
