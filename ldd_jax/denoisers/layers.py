"""Layers of the DiT (arXiv 2212.09748, as used by SEDD, MDLM, Duo and LDDM)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.draws import fold
from ldd_jax.core.logical import constrain
from ldd_jax.core.products import dot_general, linear
from ldd_jax.core.types import Array, Attend
from ldd_jax.denoisers import padding
from ldd_jax.denoisers.attention import apart, kernel
from ldd_jax.denoisers.linears import QKV, as_matrix, fan_in
from ldd_jax.denoisers.rotary import rotary
from ldd_jax.denoisers.stack import Walk

LAYER_NORM_EPS = 1e-5
FREQUENCIES = 256

zeros = nn.initializers.zeros


def bias_init(inputs: int) -> Any:
    """Uniform in +- 1/sqrt(inputs), the reference's initial bias."""
    limit = inputs**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -limit, limit
    )


def dense(features: int, inputs: int, name: str, dtype: Any, bias: bool = True) -> nn.Dense:
    """Linear layer with the reference's fan-in initialisation.

    Args:
      features: outputs.
      inputs: on which the range of the bias at the start depends.
      name: of the parameters.
      dtype: of the computation.
      bias: whether it has one.
    """
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=fan_in,
        bias_init=bias_init(inputs),
        dtype=dtype,
        dot_general=dot_general,
        name=name,
    )


def zero_dense(features: int, name: str | None, dtype: Any) -> nn.Dense:
    """Linear layer that starts at zero.

    Args:
      features: outputs.
      name: of the parameters; None = flax names them.
      dtype: of the computation.
    """
    return nn.Dense(features, kernel_init=zeros, bias_init=zeros, dtype=dtype, name=name)


class Embedding(nn.Module):
    """Token table E [V, D], uniform in +- 1/sqrt(D); of `padded` rows, those past V are zero."""

    size: int
    width: int
    init: Any = None
    padded: int = 0

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """E[z] for tokens [B, L]; softmax(z) E for log-weights [B, L, V]."""
        init = padding.first(self.init or bias_init(self.width), self.size)
        table = self.param("table", init, (max(self.padded, self.size), self.width))
        # Whole at its use: a lookup in a table cut by width would bring every row to every device.
        table = constrain(table, "vocabulary", None)
        if jnp.issubdtype(z.dtype, jnp.floating):
            return jax.nn.softmax(z, axis=-1) @ table[: self.size]
        return table[z]


def time_features(sigma: Array) -> Array:
    """[cos, sin] of sigma at 128 geometric frequencies, [..., 256], float32."""
    half = FREQUENCIES // 2
    frequency = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = sigma.astype(jnp.float32)[..., None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nn.Module):
    """silu(W2 silu(W1 features(sigma))), float32: the conditioning vector."""

    width: int

    @nn.compact
    def __call__(self, sigma: Any) -> Array:
        """[...] to [..., width]."""
        init = nn.initializers.normal(0.02)
        x = nn.Dense(self.width, kernel_init=init, name="in")(time_features(sigma))
        return nn.Dense(self.width, kernel_init=init, name="out")(nn.silu(x))


def dropout(x: Array, keys_B: Array | None, rate: float, site: int) -> Array:
    """Inverted dropout with a key per example.

    Args:
      x: [B, ...].
      keys_B: a PRNG key per example; None = nothing is dropped.
      rate: probability that an entry becomes 0; the others grow by 1 / (1 - rate).
      site: number of this place in the layer, which sets its draws apart.
    """
    if keys_B is None or rate == 0:
        return x
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, x.shape[1:]))(fold(keys_B, site))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def carried_type(dtype: str) -> Any:
    """Type of a latent that is an output of layers in `dtype`: no wider than what it holds.

    It is read in float32 (`LatentNorm`), so that a bfloat16 network loses nothing by it and carries
    half the bytes. float64 is for tests of all else; latents stay float32.
    """
    return jnp.dtype(jnp.bfloat16 if dtype == "bfloat16" else jnp.float32)


def modulate(x: Array, shift: Any, scale: Any) -> Array:
    """X (1 + scale) + shift; per example or per position.

    Args:
      x: [B, L, D].
      shift: [B, 1, D] or [B, L, D], or a number.
      scale: [B, 1, D] or [B, L, D], or a number.
    """
    return x * (1 + scale) + shift


def spread(c: Array) -> Array:
    """[B, C] to [B, 1, C], so that it broadcasts over positions; [B, L, C] stays."""
    return c[:, None, :] if c.ndim == 2 else c


class Norm(nn.Module):
    """LayerNorm with a weight and no bias, in float32, returned in the input's type, modulated.

    Only x is kept for the backward pass: elementwise work costs less than memory's way.
    """

    @partial(nn.remat, prevent_cse=False)
    @nn.compact
    def __call__(self, x: Array, shift: Any = 0, scale: Any = 0) -> Array:
        """Normalise the last axis; times (1 + scale), plus shift.

        Args:
          x: [B, L, D]; the result has its type.
          shift: of `modulate`.
          scale: of `modulate`.
        """
        y = nn.LayerNorm(epsilon=LAYER_NORM_EPS, use_bias=False, dtype=jnp.float32, name="norm")(x)
        return modulate(y.astype(x.dtype), shift, scale)


@partial(jax.checkpoint, prevent_cse=False)
def gelu(x: Array) -> Array:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))); only x is kept for the backward pass."""
    return nn.gelu(x, approximate=True)


class LatentNorm(nn.Module):
    """LayerNorm of the carried latent, zero-initialised, so that step 0 is the base model."""

    @nn.compact
    def __call__(self, h: Array) -> Array:
        """Normalise the last axis of a latent, in float32."""
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        return nn.LayerNorm(
            epsilon=LAYER_NORM_EPS,
            scale_init=zeros,
            bias_init=zeros,
            dtype=jnp.float32,
            name="norm",
        )(h)


class Heads(nn.Module):
    """Queries, keys and values of [..., D] in one product with [D, 3, heads, D / heads]."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        """[B, L, D] to three of [B, L, heads, D / heads]."""
        d = x.shape[-1]
        w = self.param("kernel", as_matrix(fan_in), (d, 3, self.heads, d // self.heads))
        return apart(linear(x.astype(self.dtype), w.astype(self.dtype)))


class Block(Walk):
    """Transformer block: attention and GELU MLP, each modulated and gated by c (adaLN-zero).

    `adaln` False leaves the modulation out: x + f(norm(x)), the block of an unconditional network.
    """

    width: int
    heads: int
    mlp_ratio: int
    dropout: float
    dtype: Any
    attention: str
    adaln: bool = True
    remat: Any = None
    torus: int = 0

    @nn.compact
    def one(self, x, layer, c, position, segment, attend: Attend, keys_B, cache):
        """One chunk, [B, L, D], and its rows for the cache.

        Args:
          x: [B, L, D].
          layer: its number, which sets its dropout apart.
          c: conditioning, [B, C] or [B, L, C]; None without `adaln`.
          position: [L] or [B, L].
          segment: documents [B, L]; None = one.
          attend: who sees whom within them.
          keys_B: a PRNG key per example for dropout; None = no dropout.
          cache: of the positions before; None = all positions are here.

        Returns:
          The new x, and what enters the cache of these positions (None without one).
        """
        keys = None if keys_B is None else fold(keys_B, layer)
        d = self.width
        shift1, scale1, gate1, shift2, scale2, gate2 = 0, 0, 1, 0, 0, 1
        if self.adaln:
            modulation = spread(zero_dense(6 * d, "adaln", self.dtype)(c.astype(self.dtype)))
            shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)

        y = Norm(name="norm1")(x, shift1, scale1)
        q, k, v = Heads(self.heads, self.dtype, name=QKV)(y)
        q, k = (rotary(a, position, torus=self.torus) for a in (q, k))
        rows = None
        if cache is None:
            y = kernel(self.attention)(q, k, v, segment, attend)
        else:
            y, rows = cache.attend(q, k, v, attend)
        y = y.reshape(x.shape)
        y = dense(d, d, "out", self.dtype, bias=False)(y)
        x = x + gate1 * dropout(y, keys, self.dropout, 0)

        y = Norm(name="norm2")(x, shift2, scale2)
        y = dense(self.mlp_ratio * d, d, "mlp_in", self.dtype)(y)
        y = dense(d, self.mlp_ratio * d, "mlp_out", self.dtype)(gelu(y))
        x = x + gate2 * dropout(y, keys, self.dropout, 1)
        return constrain(x, "batch", "length", None), rows
