"""Hollow transformer: what it says of a position depends on all others and not on it.

arXiv 2407.21243, section 4; here with a latent, in the mixing stream only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.logical import constrain
from ldd_jax.core.registry import register, runtime
from ldd_jax.core.types import Array, Attend, Cond, TokenSpace, Trunk
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.attention import masked
from ldd_jax.denoisers.linears import QKV
from ldd_jax.denoisers.rotary import rotary
from ldd_jax.denoisers.tokens import BoundTokens, TokenModel

PAST = Attend("causal")


class Mix(nn.Module):
    """One mixing layer: row i adds both streams' rows i, then sees those that left x_i out.

    Width 2 D. Keys are the forward rows j <= i, which hold x_<j, and the backward rows j >= i.
    """

    width: int
    heads: int
    mlp_ratio: int
    dtype: Any

    @nn.compact
    def __call__(self, m: Array, forward: Array, backward: Array, c: Array) -> Array:
        """One step of the mixing stream, which queries the other two.

        Args:
          m: [B, L, 2 D], what the mixing stream holds.
          forward: [B, L, D], of the positions before.
          backward: [B, L, D], of those after.
          c: conditioning, [B, C] or [B, L, C].

        Returns:
          The new m, [B, L, 2 D].
        """
        d, length = self.width, m.shape[1]
        parts = layers.zero_dense(12 * d, "adaln", self.dtype)(c.astype(self.dtype))
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(layers.spread(parts), 6, axis=-1)
        m = m + jnp.concatenate([forward, backward], axis=-1)

        split = lambda a: a.reshape(*a.shape[:2], self.heads, 2 * d // self.heads)
        q = split(
            layers.dense(2 * d, 2 * d, "q", self.dtype, bias=False)(
                layers.Norm(name="norm1")(m, shift1, scale1)
            )
        )
        place = jnp.arange(length)
        keys = []
        for name, stream in (("forward", forward), ("backward", backward)):
            y = layers.Norm(name=f"norm_{name}")(stream)
            kv = layers.dense(4 * d, d, f"kv_{name}", self.dtype, bias=False)(y)
            k, v = map(split, jnp.split(kv, 2, axis=-1))
            keys.append((rotary(k, place), v))
        k, v = (jnp.concatenate(pair, axis=1) for pair in zip(*keys))
        past = jnp.tri(length, dtype=bool)
        seen = jnp.concatenate([past, past.T], axis=1)
        y = masked(rotary(q, place), k, v, seen[None, None]).reshape(m.shape)
        m = m + gate1 * layers.dense(2 * d, 2 * d, "out", self.dtype, bias=False)(y)

        y = layers.Norm(name="norm2")(m, shift2, scale2)
        y = layers.dense(2 * self.mlp_ratio * d, 2 * d, "mlp_in", self.dtype)(y)
        y = layers.dense(2 * d, 2 * self.mlp_ratio * d, "mlp_out", self.dtype)(layers.gelu(y))
        return constrain(m + gate2 * y, "batch", "length", None)


class Group(nn.Module):
    """`mix_every` blocks of either stream, then one mixing layer."""

    config: Hollow

    @nn.compact
    def __call__(self, carry, c, position):
        """`mix_every` blocks of each stream and one of `Mix`; returns the new carry.

        Args:
          carry: (forward, backward, m), [B, L, D], [B, L, D], [B, L, 2 D]; backward runs from the
            right.
          c: conditioning, [B, C] or [B, L, C].
          position: [L], 0 .. L - 1.
        """
        forward, backward, m = carry
        f = self.config
        block = lambda name: layers.Block(
            width=f.width,
            heads=f.heads,
            mlp_ratio=f.mlp_ratio,
            dropout=0.0,
            dtype=jnp.dtype(f.dtype),
            attention=f.attention,
            name=name,
        )
        given = (0, c, position, None, PAST, None, None)
        for i in range(f.mix_every):
            forward = block(f"forward_{i}").one(forward, *given)[0]
            turned = jnp.flip(backward, axis=1)
            turned = block(f"backward_{i}").one(turned, *given)[0]
            backward = jnp.flip(turned, axis=1)
        mix = Mix(f.width, f.heads, f.mlp_ratio, jnp.dtype(f.dtype), name="mix")
        return (forward, backward, mix(m, forward, backward, c)), None


class HollowNetwork(nn.Module):
    """Everything but the vocabulary projection."""

    config: Hollow

    @nn.compact
    def __call__(self, z: Any, cond: Cond, h: Array | None) -> Trunk:
        """Run both streams and the mixing one.

        Args:
          z: tokens [B, L].
          cond: only its clock is read.
          h: latent of the pass before, [B, L, 2 D]; None = zeros.
        """
        f = self.config
        dtype = jnp.dtype(f.dtype)
        x = layers.Embedding(f.tokens.size, f.width, padded=f.table_rows, name="embed")(z)
        border = self.param("border", layers.bias_init(f.width), (2, f.width))
        batch, length = x.shape[:2]
        edge = lambda i: jnp.broadcast_to(border[i], (batch, 1, f.width)).astype(x.dtype)
        forward = jnp.concatenate([edge(0), x[:, :-1]], axis=1)
        backward = jnp.concatenate([x[:, 1:], edge(1)], axis=1)
        m = jnp.zeros((batch, length, 2 * f.width), jnp.float32)
        if f.latent:
            m = layers.LatentNorm(name="latent_norm")(m if h is None else h)
        sigma = cond.clock if f.time_conditioning else jnp.zeros(batch)
        c = nn.silu(layers.TimeEmbedding(f.cond_width, name="time")(sigma))
        groups = nn.scan(
            Group,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast,) * 2,
            length=f.depth // f.mix_every,
            check_constancy_invariants=self.is_initializing(),
        )(f, name="groups")
        streams = (a.astype(dtype) for a in (forward, backward, m))
        (_, _, m), _ = groups(tuple(streams), c, jnp.arange(length))
        parts = layers.zero_dense(4 * f.width, "final_adaln", dtype)(c.astype(dtype))
        shift, scale = jnp.split(layers.spread(parts), 2, axis=-1)
        features = layers.Norm(name="final_norm")(m, shift, scale)
        kind = layers.carried_type(f.dtype)
        return Trunk(features=features, latent=m.astype(kind) if f.latent else None)


@struct.dataclass
class BoundHollow(BoundTokens):
    """A hollow network with its parameters."""

    config: Hollow = struct.field(pytree_node=False)

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """Whether the network is told the time."""
        return self.config.time_conditioning

    @property
    def hollow(self) -> bool:  # type: ignore[override]
        """It does not see its own place."""
        return True

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`; there is no dropout."""
        del key
        if cond.label is not None or cond.segment is not None or cond.position is not None:
            raise ValueError("a hollow network takes no class, no packed documents, no positions")
        if cond.unit is not None or cond.told is not None:
            raise ValueError("this network has no patches (model: blt has); no unit, no told")
        if cond.signal is not None:
            raise ValueError("a hollow network takes no signal (model=signal_dit does)")
        if cond.attend is not None or cache is not None:
            raise ValueError("a hollow network sees what it does not predict; no attend, no cache")
        if h is not None and not self.config.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if self.config.time_conditioning and cond.clock is None:
            raise ValueError("this network is conditioned on time; cond.clock is missing")
        network = HollowNetwork(self.config)
        out: Any = network.apply({"params": self.params["trunk"]}, z, cond, h)
        return out

    def latent(self, batch: int, length: int) -> Array | None:
        """Zeros [B, L, 2 D], or None."""
        if not self.config.latent:
            return None
        kind = layers.carried_type(self.config.dtype)
        return jnp.zeros((batch, length, 2 * self.config.width), kind)


@register("model", "hollow")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hollow(TokenModel):
    """Hollow transformer: two causal streams that leave a position out, and one that mixes them.

    Row i of the forward stream reads x_<i, row i of the backward stream x_>i; row i of the mixing
    stream, 2 D wide, sees only such rows, so that d out_i / d x_i is exactly 0. A carried latent
    enters the mixing row of its own position, which keeps that.

    Attributes:
      width: channels D of either stream.
      depth: blocks of either stream.
      mix_every: blocks between mixing layers; it divides the depth.
      heads: of attention, which divide the width.
      cond_width: channels of what the adaLN is told.
      mlp_ratio: hidden units of an MLP, as a multiple of its width.
      latent: opens the loophole: the mixing stream is carried, normalised and starts the next one.
      time_conditioning: tell the adaLN sigma(t); False feeds 0.
      dtype: of activations: float32, bfloat16 or float64.
      attention: the kernel of the streams, such as plain.
      vocab_multiple: the token table and the projection to the vocabulary get rows of zeros up to
        a multiple of it, which nobody sees and a mesh divides.
    """

    width: int = 64
    depth: int = 2
    mix_every: int = 1
    heads: int = 4
    cond_width: int = 128
    mlp_ratio: int = 4
    latent: bool = False
    time_conditioning: bool = False
    dtype: str = "float32"
    attention: str = "plain"
    vocab_multiple: int = 1
    tokens: TokenSpace = runtime()

    bound = BoundHollow
    stack = "groups"
    cut = {
        QKV: ("width", None, "heads", None),
        "q": ("width", "heads"),
        "kv_forward": ("width", "heads"),
        "kv_backward": ("width", "heads"),
        "out": ("heads", "width"),
        "mlp_in": ("width", "mlp"),
        "mlp_out": ("mlp", "width"),
    }
    causal = False
    num_classes = 0
    dropout = 0.0
    points = False

    def __post_init__(self):
        at_least_one(self, "width", "depth", "mix_every", "heads", "cond_width", "mlp_ratio")
        at_least_one(self, "vocab_multiple")
        if self.depth % self.mix_every:
            raise ValueError(f"mix_every is {self.mix_every}; it must divide depth {self.depth}")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} must be a multiple of twice the {self.heads} heads (rotary)"
            )
        if self.dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"dtype {self.dtype!r} is not one of float32, bfloat16, float64")

    @property
    def features(self) -> int:
        """Channels of the mixing stream."""
        return 2 * self.width

    def new_trunk(self, key: Array) -> Any:
        """Both streams and the mixing one."""
        z, cond = jnp.zeros((1, 2), jnp.int32), Cond(clock=jnp.zeros(1))
        return HollowNetwork(self).init(key, z, cond, None)["params"]

    def divides(self, names: list[str]) -> bool:
        """Everywhere but in what reads the time."""
        return "time" not in names

    def operations(self, length: int) -> dict[str, float]:
        """Of one position, forward: two streams of width D and a mixing one of width 2 D.

        Stream and layer: 2 D^2 (4 + 2 ratio) + 4 L D. Mixing layer: q and out 8 D^2, keys and
        values 8 D^2, MLP 8 ratio D^2 products, twice each, and 16 L D for scores and values.
        """
        d, r = self.width, self.mlp_ratio
        stream = 2 * d * d * (4 + 2 * r) + 4 * length * d
        mix = 2 * d * d * (16 + 8 * r) + 16 * length * d
        trunk = 2 * self.depth * stream + self.depth // self.mix_every * mix
        return {"trunk": trunk, "head": 4 * d * self.tokens.size}
