"""Fields that all pretrained decoders share, what they refuse, and where parameters are cut."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.checks import UserError, at_least_one, nearest
from ldd_jax.core.registry import component, runtime
from ldd_jax.core.types import Array, Cond, TokenSpace
from ldd_jax.denoisers import layers, padding
from ldd_jax.denoisers.attention import kernel
from ldd_jax.denoisers.carry import Hidden, check_carried
from ldd_jax.denoisers.decoder_bound import BoundDecoder
from ldd_jax.denoisers.decoder_network import Network
from ldd_jax.denoisers.linears import QKV, Adapter, normal
from ldd_jax.denoisers.stack import REMAT, check_block
from ldd_jax.denoisers.tokens import TokenModel

SHIFTS = ("none", "repeat", "start")
DTYPES = ("float32", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder(TokenModel):
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
    bound = BoundDecoder
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
    def adapter(self) -> Adapter:
        """Adapters of its linear layers, of all of them where none is named."""
        return Adapter(self.lora_rank, self.lora_alpha, self.lora_targets or self.linears)

    def family(self) -> str:
        """`model_type` of the same network in transformers.

        Raises:
          UserError: where there is none.
        """
        name = self.registered[1]  # type: ignore[attr-defined]
        raise UserError(
            f"transformers has no network {name!r}; give --names=own or --names=reference"
        )

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
