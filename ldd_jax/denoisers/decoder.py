"""What pretrained decoders share: shifted predictions, a latent, a cache, blocks under a scan."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError, at_least_one, nearest
from ldd_jax.core.registry import component, runtime
from ldd_jax.core.types import Array, Cond, TokenSpace, Trunk
from ldd_jax.denoisers import layers, padding
from ldd_jax.denoisers.attention import kernel
from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.denoisers.caches import Around, Cache, around
from ldd_jax.denoisers.carry import Hidden, check_carried, entering
from ldd_jax.denoisers.linears import QKV, Adapter, Product, Projection, normal
from ldd_jax.denoisers.stack import REMAT, Walk, check_block, stacked, through

SHIFTS = ("none", "repeat", "start")
DTYPES = ("float32", "bfloat16", "float64")


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
        stack = stacked(block, c.depth, c.unroll)
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


@struct.dataclass
class BoundDecoder(BoundNetwork):
    """A decoder with its parameters.

    With a shift, row i of the network predicts position i + 1, and features and latent come out at
    the position that they predict; the latent enters the row that shows that position's token.
    """

    params: Any
    config: Decoder = struct.field(pytree_node=False)

    @property
    def head(self) -> Projection:
        """The vocabulary projection."""
        size = self.config.tokens.size
        if self.config.tied:
            return Projection(self.params["trunk"]["embed"]["table"].T, size)
        return Projection(self.params["head"]["kernel"], size)

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """Whether the network is told the time."""
        return self.config.time_conditioning

    @property
    def block(self) -> int:  # type: ignore[override]
        """Positions of a block."""
        return self.config.block

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`; there is no dropout."""
        del key
        config = self.config
        self._check(cond, h, cache)
        if cache is not None:
            place = cache.begin + jnp.arange(z.shape[1])
            return self._left(self._run(z, cond._replace(position=place), h, cache))
        segment = cond.segment
        if config.shift == "start":
            z, cond, h = self._with_start(z, cond, h)
        if cond.position is None:
            config.check_length(z.shape[1])
        out = self._run(z, cond, h)
        if config.shift == "none":
            return self._left(out)
        move = lambda a: _moved(a, segment, config.shift == "start")
        return self._left(Trunk(*jax.tree.map(move, (out.features, out.latent))))

    def _left(self, out: Trunk) -> Trunk:
        """With what the next call gets, at the positions that are predicted."""
        config = self.config
        return out._replace(latent=config.carry.made(self, out)) if config.latent else out

    @property
    def _caches(self) -> bool:
        config = self.config
        return (config.causal or config.block > 0) and config.shift == "none"

    def _run(self, *given: Any) -> Trunk:
        out: Any = Network(self.config).apply({"params": self.params["trunk"]}, *given)
        return out

    def _check(self, cond: Cond, h: Any, cache: Any) -> None:
        config = self.config
        if cond.attend is not None:
            cond.attend.check()
        if h is not None and not config.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if cond.label is not None:
            raise ValueError("this network takes no class label")
        if cond.signal is not None:
            raise ValueError("this network takes no signal (model=signal_dit does)")
        if cond.unit is not None or cond.told is not None:
            raise ValueError("this network has no patches (model: blt has); no unit, no told")
        if config.time_conditioning and cond.clock is None:
            raise ValueError("this network is conditioned on time; cond.clock is missing")
        if cache is not None and (cond.segment is not None or cond.attend is not None):
            raise ValueError(
                "a cache holds one document, read from left to right; cond.segment and "
                "cond.attend do not apply"
            )
        if cond.attend is not None and cond.attend.size and config.shift == "start":
            raise ValueError("blocks of a known size have no place for a start (model.shift)")
        if cache is not None:
            cache.check(self._caches)

    def _with_start(self, z: Array, cond: Cond, h: Any) -> tuple[Array, Cond, Any]:
        """Rows with the start before them; it belongs to the first document and has no latent."""
        begin = self.config.begin if self.config.begin >= 0 else self.config.tokens.mask
        first = lambda a, value: jnp.pad(
            a, [(0, 0), (1, 0)] + [(0, 0)] * (a.ndim - 2), constant_values=value
        )
        before = lambda a: jnp.concatenate([a[:, :1], a], axis=1)
        z, h = first(z, begin), None if h is None else first(h, 0)
        if cond.segment is not None:
            cond = cond._replace(segment=before(cond.segment))
        if cond.position is not None:
            place = jnp.broadcast_to(cond.position, (z.shape[0], z.shape[1] - 1))
            cond = cond._replace(position=first(place + 1, 0))
        if cond.clock is not None and cond.clock.ndim == 2:
            cond = cond._replace(clock=before(cond.clock))
        attend = cond.attend
        if attend is not None and attend.unit is not None:
            cond = cond._replace(attend=dataclasses.replace(attend, unit=before(attend.unit)))
        if attend is not None and attend.mask is not None:  # the start sees what the first sees
            mask = attend.mask
            mask = jnp.concatenate([mask[..., :1, :], mask], axis=-2)
            mask = jnp.concatenate([jnp.ones_like(mask[..., :1]), mask], axis=-1)
            cond = cond._replace(attend=dataclasses.replace(attend, mask=mask))
        return z, cond, h

    def parts(self, z: Array, h: Array) -> tuple[Array, Array]:  # type: ignore[override]
        """E(z) and what is carried, whose sum enters the first block; float32 [B, L, D] both."""
        out: Any = Network(self.config).apply(
            {"params": self.params["trunk"]}, z, h, method=Network.parts
        )
        return out

    def latent(self, batch: int, length: int) -> Array | None:
        """Zeros [B, L, K], or None."""
        config = self.config
        if not config.latent:
            return None
        return jnp.zeros((batch, length, config.latent_size), config.latent_type)

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `length` positions of a network that looks back only."""
        if not self._caches:
            raise UserError(
                "a bidirectional network keeps no cache (model.causal is False); step next_token "
                "samples models trained with method=ar"
            )
        return self._empty(batch, length)

    def _empty(self, batch: int, length: int) -> Cache:
        config = self.config
        config.check_length(length)
        return Cache.empty(config.depth, batch, length, *config.key_heads, config.dtype)

    @property
    def lead(self) -> int:
        """Rows before a position that predict it."""
        return 1 if self.config.shift == "repeat" else 0

    def around(self, batch: int, length: int) -> Around:
        """An empty cache of a row that is seen both ways.

        Raises:
          ValueError: for a network that keeps none of that kind.
        """
        if self.config.shift == "start":
            raise ValueError("a network with a start before the row (model.shift) keeps no cache")
        kept = around(self._empty(batch, length))
        kept.check(self.config.causal or self.config.block > 0)
        return kept


def _moved(a: Array, segment: Array | None, start: bool) -> Array:
    """Rows at the position that they predict, [B, L, ...].

    Position 0 is predicted by the start; without one, and at the first position of every further
    document, by its own row, as Dream does at position 0.

    Args:
      a: rows of the network, [B, L, ...], or [B, L + 1, ...] with a start.
      segment: documents [B, L]; None = one.
      start: whether a start stands before them.
    """
    own = a[:, 1:] if start else a
    before = a[:, :-1] if start else jnp.concatenate([a[:, :1], a[:, :-1]], axis=1)
    if segment is None:
        return before
    begins = jnp.pad(segment[:, 1:] != segment[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(begins[..., None], own, before)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder:
    """Fields and defaults of all decoders.

    Attributes:
      width: channels D of the residual stream.
      depth: blocks, one after the other.
      heads: of queries.
      latent: opens the loophole: the last block's output is carried, normalised and added to the
        embedding (two parameters a channel, zero at first).
      carry: what a call leaves to the next: h, or an embedding of its prediction.
      carry_at: where it enters: at all positions, or masked ones only.
      time_conditioning: add an embedding of the clock to every row; its last layer is zero at
        first.
      causal: a position attends to itself and to those before it only, where nothing else is said.
      block: a position attends to its own block of so many and to those before it only, as block
        diffusion trains it (arXiv 2503.09573); 0 = there are none.
      shift: none: row i predicts position i, as in LLaDA; start: it predicts i + 1, a start stands
        before the row; repeat: it predicts i + 1, and row 0 position 0 as well, as in Dream.
      begin: id of that start; -1 = the mask.
      norm_eps: added to the mean square in a norm.
      dtype: of activations: float32, bfloat16 or float64.
      param_dtype: of parameters, float32 or bfloat16.
      remat: what a block keeps for the backward pass: none (all of it), dots or full (nothing).
      chunks: pieces at most in which a block walks its batch.
      unroll: blocks side by side in the program.
      attention: the kernel, such as plain.
      lora_rank: of low-rank adapters (arXiv 2106.09685); 0 = none. With them only they and the
        latent's norm are trained, where optim.trainable does not say otherwise.
      lora_alpha: their product is multiplied by lora_alpha / lora_rank; 0 = by 1.
      lora_targets: layers of a block that have one; none named = all.
      vocab_multiple: the token table and the projection to the vocabulary get rows of zeros up to
        a multiple of it, which nobody sees and a mesh divides.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4
    latent: bool = False
    carry: Any = component("carry", Hidden)
    carry_at: str = "all"
    time_conditioning: bool = False
    causal: bool = False
    block: int = 0
    shift: str = "none"
    begin: int = -1
    norm_eps: float = 1e-5
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    chunks: int = 1
    unroll: int = 1
    attention: str = "plain"
    lora_rank: int = 0
    lora_alpha: float = 0.0
    lora_targets: tuple[str, ...] = ()
    vocab_multiple: int = 1
    tokens: TokenSpace = runtime()

    linears: ClassVar[tuple[str, ...]] = ()
    num_classes = 0
    dropout = 0.0
    points = False
    by_token = True
    latent_width = 0
    learned_positions = 0
    tied = True

    def __post_init__(self):
        at_least_one(self, "width", "depth", "heads", "chunks", "unroll", "vocab_multiple")
        if self.shift not in SHIFTS:
            raise ValueError(f"shift {self.shift!r} is not one of {', '.join(SHIFTS)}")
        check_block(self.block, causal=self.causal)
        if self.block and self.shift != "none":
            raise ValueError(f"block needs shift none, not {self.shift!r}")
        if self.tokens is not None:
            if not -1 <= self.begin < self.tokens.size:
                raise ValueError(f"begin is {self.begin}; there are {self.tokens.size} states")
            if self.shift == "start" and self.begin < 0 and self.tokens.mask is None:
                raise ValueError("shift start needs a mask, or the id of a token in begin")
        if not 0 < self.norm_eps < 1:
            raise ValueError(f"norm_eps is {self.norm_eps}; it must lie in (0, 1)")
        if self.remat not in REMAT:
            raise ValueError(f"remat {self.remat!r} is not one of {', '.join(REMAT)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.param_dtype not in DTYPES[:2]:
            raise ValueError(f"param_dtype {self.param_dtype!r} is not float32 or bfloat16")
        if self.lora_rank < 0 or self.lora_alpha < 0:
            raise ValueError("lora_rank and lora_alpha must not be negative")
        other = sorted(set(self.lora_targets) - set(self.linears))
        if other:
            raise ValueError(f"lora_targets: {other[0]!r}; {nearest(other[0], self.linears)}")
        check_carried(self)
        kernel(self.attention)

    @property
    def latent_size(self) -> int:
        """K, channels of what is carried."""
        return self.carry.channels(self.width, 0)

    @property
    def latent_type(self) -> Any:
        """Of what is carried: soft signals are made in float32."""
        return layers.carried_type("float32" if self.carry.soft else self.dtype)

    @property
    def table_rows(self) -> int:
        """Of the token table: the states, rounded up to a multiple of `vocab_multiple`."""
        return padding.rounded(self.tokens, self.vocab_multiple)

    @property
    def adapter(self) -> Adapter:
        """Adapters of its linear layers, of all of them where none is named."""
        return Adapter(self.lora_rank, self.lora_alpha, self.lora_targets or self.linears)

    def layer(self) -> tuple[Any, dict[str, Any]]:
        """Class of a block, and its fields beside `dtype` and `remat`."""
        raise NotImplementedError

    def norm(self) -> nn.Module:
        """The final norm."""
        raise NotImplementedError

    def place(self, position: Array) -> Any:
        """What a block is told of positions [L] or [B, L], leaves with the same leading axes."""
        raise NotImplementedError

    @property
    def key_heads(self) -> tuple[int, int]:
        """Heads of keys and values, and channels of one."""
        raise NotImplementedError

    def layer_operations(self, length: int) -> float:
        """Of one position in one block, forward."""
        raise NotImplementedError

    def operations(self, length: int) -> dict[str, float]:
        """Of one position, forward: its blocks, the head, and what is carried.

        Args:
          length: positions that each attends to.
        """
        d, states = self.width, self.tokens.size
        read = self.carry.reading(d) if self.latent else 0.0
        found = {
            "trunk": self.depth * self.layer_operations(length) + read,
            "head": 2.0 * d * states,
        }
        made = self.carry.operations(d, states) if self.latent else 0.0
        return found | ({"carry": made} if made else {})

    def check_length(self, length: int) -> None:
        """Refuse rows that the network has no positions for."""

    def init(self, key: Array) -> Any:
        """{"trunk": ..., "head": {"kernel"} or {}}."""
        z, cond = jnp.zeros((1, 2), jnp.int32), Cond(clock=jnp.zeros(1))
        trunk: Any = Network(self).init(key, z, cond, None)["params"]
        head = {}
        if not self.tied:
            one = jax.random.fold_in(key, 1)
            kernel = normal(one, (self.width, self.tokens.size))
            head = {"kernel": padding.widened(kernel, self.table_rows, 1)}
        kind = jnp.dtype(self.param_dtype)
        return jax.tree.map(lambda a: a.astype(kind), {"trunk": trunk, "head": head})

    def bind(self, params: Any) -> BoundDecoder:
        """The denoiser with these parameters."""
        return BoundDecoder(params=params, config=self)

    def axes(self) -> Any:
        """Logical axes of every parameter; the leading axis of a block is its layer."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        found = jax.tree_util.tree_map_with_path(_axes, shapes)
        if "latent_norm" in found["trunk"]:
            found["trunk"]["latent_norm"] = self.carry.axes(("width",))
        return found


CUT: dict[str, tuple[str | None, ...]] = {
    "q": ("width", "heads"),
    "k": ("width", "heads"),
    "v": ("width", "heads"),
    QKV: ("width", None, "heads", None),
    "out": ("heads", "width"),
    "gate": ("width", "mlp"),
    "up": ("width", "mlp"),
    "down": ("mlp", "width"),
}


def _axes(path: Any, leaf: Any) -> tuple[str | None, ...]:
    """By the parameter's name."""
    names = [k.key for k in path]
    lead: tuple[str | None, ...] = ("layer",) if "blocks" in names else ()
    if names[-1] == "table":
        return ("vocabulary" if "embed" in names else None, "width")
    if names[0] == "head":
        return ("width", "vocabulary")
    if lead and names[-2] in CUT:
        cut = CUT[names[-2]]
        if names[-1].startswith("lora_"):
            return lead + ((cut[0], "latent") if names[-1] == "lora_a" else ("latent", *cut[1:]))
        return lead + (cut if names[-1] == "kernel" else cut[1:])
    if "time" in names[1] or "q_norm" in names or "k_norm" in names:
        return lead + (None,) * (leaf.ndim - len(lead))
    return (*lead, "width")
