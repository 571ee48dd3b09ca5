"""Data that flows between the stages.

Dim letters: B batch, L length, V all states (mask column included), D width, K latent width,
N rows (= B * L flattened).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSpace:
    """The alphabet of a process: `size` states, one of which may be the mask.

    The only definition of the mask id in the code base; it may stand anywhere in [0, size).
    `exact` False: the size is only the most that it can be, before the data are read. `digits`
    states write a token, one of `vocabulary` (0 = not told).
    """

    size: int
    mask: int | None = None
    exact: bool = True
    digits: int = 1
    vocabulary: int = 0

    def __post_init__(self):
        if self.size < 1 or (self.mask is not None and not 0 <= self.mask < self.size):
            raise ValueError(
                f"TokenSpace(size={self.size}, mask={self.mask}): mask outside [0, size)"
            )

    @property
    def mask_token(self) -> int | None:
        """The id that stands for the mask in a row of tokens; None where it is a digit's."""
        return self.mask if self.digits == 1 else None


ATTENDS = ("full", "causal", "block", "doubled", "mask", "annealed")
BLOCKED = ("block", "doubled")


@struct.dataclass
class Attend:
    """Which keys a query sees, among those of its own document (`Cond.segment`).

    kind: "full" all; "causal" itself and those before; "block" those whose block is not after its
    own; "doubled" a row of noise with its clean copy after it, [B, 2 L]: noise sees the noise of
    its own block and what is clean before it, a clean position what is clean and not after its own
    block (block diffusion, arXiv 2503.09573). A block is what has the same `unit` (a block or patch
    number, [B, L]), or each `size` places. "mask" where `mask` is
    True, [L, L] or [B, L, L] (query, key). Every query must see a key. "annealed" itself and those
    before, and each of those after with probability `share`: one draw by `key` for all rows, heads
    and layers (DiffuLLaMA, arXiv 2410.17891); share 0 is causal, 1 is full.
    """

    kind: str = struct.field(pytree_node=False, default="full")
    unit: Array | None = None
    mask: Array | None = None
    share: Array | None = None
    key: Array | None = None
    size: int = struct.field(pytree_node=False, default=0)

    @property
    def static(self) -> bool:
        """Whether it is known without an array."""
        return self.kind in ("full", "causal") or self.size > 0

    def check(self) -> None:
        """Refuse an unknown kind, or one without its array.

        Raises:
          ValueError: saying which. Not when it is made: trees of it hold what is no array too.
        """
        if self.kind not in ATTENDS:
            raise ValueError(f"attend kind {self.kind!r} is not one of {', '.join(ATTENDS)}")
        if (self.unit is not None) + (self.size > 0) != (self.kind in BLOCKED):
            raise ValueError(
                "attend: unit belongs to kind 'block' or 'doubled', or a size in its place, and "
                "to no other"
            )
        if (self.kind == "mask") != (self.mask is not None):
            raise ValueError("attend: mask belongs to kind 'mask', and to no other")
        if {self.share is not None, self.key is not None} != {self.kind == "annealed"}:
            raise ValueError("attend: share and key belong to kind 'annealed', and to no other")

    def drawn(self, length: int) -> Attend:
        """With the mask that "annealed" draws for rows of this length; else itself."""
        if self.key is None or self.share is None:
            return self
        later = jax.random.uniform(self.key, (length, length)) < self.share
        return Attend("mask", mask=jnp.tri(length, dtype=bool) | later)


class Cond(NamedTuple):
    """All that a network is told besides tokens; a leaf it has no input for is refused.

    clock: what the process tells the network of time, [B] or [B, L]; label: class [B];
    segment: packed documents [B, L], 0 = padding; position: [B, L], None = 0..L-1;
    attend: which positions see which, None = as the network was made; unit: number of each
    position's patch, int32 [B, L], from 0 and never falling; told: tokens [B, L] that a decoder
    reads from left to right inside a patch, where it may know those before; signal: points [B, L,
    C] that the positions are told beside their tokens; chance: a uniform number, one for all rows,
    by which a network draws how often it loops.
    """

    clock: Array | None = None
    label: Array | None = None
    segment: Array | None = None
    position: Array | None = None
    attend: Attend | None = None
    unit: Array | None = None
    told: Array | None = None
    signal: Array | None = None
    chance: Array | None = None

    def of_none(self, classes: int, batch: int) -> Cond:
        """With the label that means none where a network of `classes` is told no class.

        Without any label such a network is one that nobody trained.
        """
        if not classes or self.label is not None:
            return self
        return self._replace(label=jnp.full(batch, classes, jnp.int32))


class Trunk(NamedTuple):
    """Output of a denoiser's trunk.

    features_BLD after final norm and modulation; latent_BLK before it, float32 (bfloat16 where
    the layers compute in that); cache for decoding.
    """

    features: Array
    latent: Any
    cache: Any = None


class Batch(NamedTuple):
    """One (micro)batch of training or evaluation examples.

    z0 [B, L] clean tokens; keep [B, L] positions never corrupted (prompt, padding); weight [B, L]
    share of a position in the loss; cond; index [B] position in the global step batch, from which
    times and keys come; total: size of that global batch; norm: sum of weights over it; step: the
    update's number, 0 in evaluation; drawn: what an objective drew for the update (`Objective.
    drawn`), leaves [B, ...].
    """

    z0: Array
    keep: Array
    weight: Array
    cond: Cond
    index: Array  # type: ignore[assignment]
    total: Any
    norm: Any
    step: Any = 0
    drawn: Any = ()


def as_batch(arrays: dict[str, Array]) -> Batch:
    """A global batch from the pipeline's arrays; its own size and weights normalise it."""
    return Batch(
        z0=arrays["z0"],
        keep=arrays["keep"],
        weight=arrays["weight"],
        cond=Cond(
            label=arrays.get("label"),
            segment=arrays.get("segment"),
            position=arrays.get("position"),
            unit=arrays.get("unit"),
            signal=arrays.get("signal"),
        ),
        index=arrays["index"],
        total=arrays["z0"].shape[0],
        norm=jnp.sum(arrays["weight"]),
    )


class Loss(NamedTuple):
    """A scalar that simply adds up over microbatches and shards, and metrics that do too.

    kept: fields of what the objective keeps (`Objective.aux`) that were made on the way, leaves
    [B, ...].
    """

    total: Array
    metrics: dict[str, Array]
    kept: dict[str, Any] = {}
