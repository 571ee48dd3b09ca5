"""A text as Q vectors: an encoder, a decoder that reads them, and a DiT that diffuses them.

Latent diffusion for language (Lovelace et al. 2023, arXiv 2212.09462), with a latent carried.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import at_least_one, nearest
from ldd_jax.core.registry import register, runtime
from ldd_jax.core.types import Array, Cond, TokenSpace, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.attention import masked
from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.denoisers.dit import DiT
from ldd_jax.denoisers.dit_bound import BoundDiT
from ldd_jax.denoisers.inputs import Linear
from ldd_jax.denoisers.reader import Prefixed, Reader, alone
from ldd_jax.denoisers.rotary import rotary
from ldd_jax.denoisers.transformer import LinearHead

ESTIMATE, HIDDEN = "estimate", "hidden"
CARRIED = {"both": (ESTIMATE, HIDDEN), ESTIMATE: (ESTIMATE,), HIDDEN: (HIDDEN,)}


class Pool(nn.Module):
    """Q learned queries, placed evenly along the row, attend to it; each becomes a vector.

    A vector has mean 0 and variance 1 over its C numbers: the encoder cannot outgrow the noise.
    """

    config: Compressor

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, L, D] to [B, Q, C], float32."""
        f, (batch, length, d) = self.config, x.shape
        dtype = jnp.dtype(f.dtype)
        split = lambda a: a.reshape(*a.shape[:2], f.heads, d // f.heads)
        y = self.param("queries", layers.bias_init(d), (f.vectors, d)).astype(dtype)
        y = jnp.broadcast_to(y, (batch, *y.shape))
        q = split(layers.dense(d, d, "q", dtype, bias=False)(layers.Norm(name="norm1")(y)))
        kv = layers.dense(2 * d, d, "kv", dtype, bias=False)(x)
        k, v = map(split, jnp.split(kv, 2, axis=-1))
        place = (jnp.arange(f.vectors) + 0.5) * (length / f.vectors) - 0.5
        seen = masked(rotary(q, place), rotary(k, jnp.arange(length)), v, None)
        y = y + layers.dense(d, d, "out", dtype, bias=False)(seen.reshape(y.shape))
        z = layers.dense(f.mlp_ratio * d, d, "mlp_in", dtype)(layers.Norm(name="norm2")(y))
        y = y + layers.dense(d, f.mlp_ratio * d, "mlp_out", dtype)(layers.gelu(z))
        y = layers.dense(f.size, d, "down", jnp.float32)(layers.Norm(name="norm3")(y))
        unit = nn.LayerNorm(
            epsilon=layers.LAYER_NORM_EPS, use_bias=False, use_scale=False, dtype=jnp.float32
        )
        return unit(y)


@struct.dataclass
class BoundCompressor(BoundNetwork):
    """All three with their parameters; as a denoiser it is the one of the vectors."""

    params: Any
    config: Compressor = struct.field(pytree_node=False)

    timed = True

    @property
    def head(self) -> LinearHead:
        """The velocity of a vector, [N, D] to [N, C]."""
        return LinearHead(**self.params["prior"]["head"])

    def encoded(self, tokens: Array, cond: Cond) -> Array:
        """Vectors [B, Q, C] of texts [B, L].

        Args:
          tokens: whole rows.
          cond: refused where it tells of padding, documents or classes.

        Raises:
          UserError: for rows that are not whole.
        """
        alone(cond)
        params, f = self.params["encoder"], self.config
        encoder = BoundDiT(params={"trunk": params["trunk"]}, config=f.encoder_dit())
        x = encoder.trunk(tokens, Cond()).features
        out: Any = Pool(f).apply({"params": params["pool"]}, x)
        return out

    def reader(self, vectors: Array) -> Reader:
        """The decoder, told these vectors [B, Q, C]."""
        return Reader(self.config.decoder_dit().bind(self.params["decoder"]), vectors)

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`, of vectors z [B, Q, C]; cond.clock is log alpha / (1 - alpha)."""
        del key
        alone(cond._replace(clock=None))
        f = self.config
        if cond.clock is None or cond.clock.ndim != 1:
            raise ValueError("this network is told the noise of all vectors; cond.clock is [B]")
        if h is not None and not f.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if cache is not None:
            raise ValueError("vectors are denoised together; no cache")
        given = h or {}
        before = given.get(ESTIMATE, jnp.zeros(z.shape, jnp.float32)).astype(z.dtype)
        rows = jnp.concatenate([z, before], axis=-1)
        own = Cond(clock=cond.clock)
        out = f.prior_dit().bind(self.params["prior"]).trunk(rows, own, given.get(HIDDEN))
        if not f.latent:
            return Trunk(features=out.features, latent=None)
        new = {HIDDEN: out.latent}
        if ESTIMATE in CARRIED[f.carried]:
            v = self.head(out.features.reshape(-1, out.features.shape[-1])).reshape(z.shape)
            root = lambda a: jnp.sqrt(jax.nn.sigmoid(a))[:, None, None].astype(z.dtype)
            new[ESTIMATE] = (root(cond.clock) * z - root(-cond.clock) * v).astype(jnp.float32)
        return Trunk(features=out.features, latent={n: new[n] for n in CARRIED[f.carried]})

    def latent(self, batch: int, length: int) -> dict[str, Array] | None:
        """Zeros, float32: the estimate [B, Q, C], the hidden state [B, Q, D], or None."""
        f = self.config
        if not f.latent:
            return None
        size = {ESTIMATE: f.size, HIDDEN: f.width}
        return {n: jnp.zeros((batch, length, size[n]), jnp.float32) for n in CARRIED[f.carried]}


@register("model", "compressor")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Compressor:
    """Text to Q vectors of C numbers and back, and a denoiser of the vectors.

    Encoder: a bidirectional DiT over tokens, whose rows Q learned queries attend to. Decoder: a
    causal DiT over Q rows made of the vectors and the tokens after them. Both are without time. In
    between a DiT over Q rows, which is told the noise. All have the same width.

    Attributes:
      width: channels D of all three.
      depth: blocks of the DiT over vectors.
      encoder: blocks of the encoder.
      decoder: blocks of the decoder.
      heads: of attention, which divide the width.
      cond_width: channels of what the adaLN is told.
      mlp_ratio: hidden units of a block's MLP, as a multiple of the width.
      vectors: Q of a text.
      size: C, numbers of a vector.
      latent: opens the loophole of the DiT over vectors.
      carried: what goes through it: estimate (self-conditioning, the vectors as last estimated),
        hidden (the state of the last block, as in a DiT) or both.
      time_conditioning: True; the noise is always told.
      dtype: of activations: float32, bfloat16 or float64.
      attention: the kernel, such as plain.
      unroll: blocks side by side in the program.
      vocab_multiple: the token table and the projection to the vocabulary get rows of zeros up to
        a multiple of it, which nobody sees and a mesh divides.
    """

    width: int = 64
    depth: int = 3
    encoder: int = 2
    decoder: int = 2
    heads: int = 4
    cond_width: int = 128
    mlp_ratio: int = 4
    vectors: int = 8
    size: int = 16
    latent: bool = False
    carried: str = "both"
    time_conditioning: bool = True
    dtype: str = "float32"
    attention: str = "plain"
    unroll: int = 1
    vocab_multiple: int = 1
    tokens: TokenSpace = runtime()

    num_classes = 0
    dropout = 0.0
    causal = False
    points = True

    def __post_init__(self):
        at_least_one(self, "vectors", "encoder", "decoder", "vocab_multiple")
        if self.size < 2:
            raise ValueError(f"size is {self.size}; a vector of variance 1 has 2 numbers or more")
        if self.carried not in CARRIED:
            raise ValueError(f"carried {self.carried!r}: {nearest(self.carried, CARRIED)}")
        if not self.time_conditioning:
            raise ValueError("a denoiser of vectors is told their noise; time_conditioning is True")
        self.prior_dit()

    def _dit(self, **fields: Any) -> DiT:
        same = dict(
            width=self.width,
            heads=self.heads,
            cond_width=self.cond_width,
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype,
            attention=self.attention,
            unroll=self.unroll,
        )
        return DiT(**same | fields)  # type: ignore[arg-type]

    def encoder_dit(self) -> DiT:
        """Over tokens, both ways."""
        return self._dit(depth=self.encoder, latent=False, adaln=False, **self._words())

    def decoder_dit(self) -> DiT:
        """Over vectors and tokens, left to right."""
        enter = Prefixed(vectors=self.vectors, size=self.size)
        own = dict(latent=False, adaln=False, causal=True, input=enter)
        return self._dit(depth=self.decoder, **own, **self._words())

    def _words(self) -> dict[str, Any]:
        return dict(tokens=self.tokens, vocab_multiple=self.vocab_multiple)

    def prior_dit(self) -> DiT:
        """Over vectors beside their estimate."""
        carried = self.latent and HIDDEN in CARRIED[self.carried]
        return self._dit(
            depth=self.depth,
            latent=carried,
            time_conditioning=True,
            input=Linear(channels=2 * self.size),
            tokens=TokenSpace(size=self.size),
        )

    def init(self, key: Array) -> Any:
        """{"encoder": {"trunk", "pool"}, "decoder": {"trunk", "head"}, "prior": {...}}."""
        keys = jax.random.split(key, 4)
        rows = jnp.zeros((1, 2, self.width), jnp.dtype(self.dtype))
        pool: Any = Pool(self).init(keys[1], rows)["params"]
        return {
            "encoder": {"trunk": self.encoder_dit().init(keys[0])["trunk"], "pool": pool},
            "decoder": self.decoder_dit().init(keys[2]),
            "prior": self.prior_dit().init(keys[3]),
        }

    def bind(self, params: Any) -> BoundCompressor:
        """The networks with these parameters."""
        return BoundCompressor(params=params, config=self)

    def axes(self) -> Any:
        """Logical axes of every parameter."""
        norm = {"norm": {"scale": ("width",)}}
        pool = {
            "queries": (None, "width"),
            "q": {"kernel": ("width", "heads")},
            "kv": {"kernel": ("width", "heads")},
            "out": {"kernel": ("heads", "width")},
            "mlp_in": {"kernel": ("width", "mlp"), "bias": ("mlp",)},
            "mlp_out": {"kernel": ("mlp", "width"), "bias": ("width",)},
            "down": {"kernel": ("width", None), "bias": (None,)},
            "norm1": norm,
            "norm2": norm,
            "norm3": norm,
        }
        prior = self.prior_dit().axes()
        prior["head"] = {"kernel": ("width", None), "bias": (None,)}
        return {
            "encoder": {"trunk": self.encoder_dit().axes()["trunk"], "pool": pool},
            "decoder": self.decoder_dit().axes(),
            "prior": prior,
        }

    def operations(self, length: int) -> dict[str, float]:
        """Of a token's share of the DiT over vectors, Q / L of a row; encoder and decoder apart."""
        share = self.vectors / length
        return {n: share * ops for n, ops in self.prior_dit().operations(self.vectors).items()}
