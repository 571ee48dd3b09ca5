"""A stack of blocks under a scan, each of which may walk its batch in chunks."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldd_jax.core.draws import fold
from ldd_jax.core.logical import constrain, pieces
from ldd_jax.core.types import Array, Attend, Cond

# Scope of a loop through the blocks that chance may leave out.
LOOPS = "further_loops"
LOOPS_FROM = 1 << 10  # beside the numbers of layers, in a key of dropout

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def check_block(block: int, *, causal: bool) -> None:
    """Refuse what is no block size.

    Raises:
      ValueError: in words.
    """
    if block < 0:
        raise ValueError(f"block is {block}; it must be 0 (no blocks) or positions of a block")
    if block and causal:
        raise ValueError("a causal network has blocks of 1; give block, or causal, not both")


class Walk(nn.Module):
    """A block whose method `one` maps [B, L, D] to the same, and its field `remat`.

    A batch laid out in chunks, [C, B / C, L, D], is walked a chunk at a time; with `remat` only
    the chunks' inputs are kept for the backward pass, and what lives inside a block has the size
    of a chunk.
    """

    def __call__(self, carry, c, position, segment, attend, keys_B, cache=None):
        """All chunks of a batch in turn; they are the leading axis of all arrays but the cache.

        Args:
          carry: (x [C, B / C, L, D], number of the layer).
          c: of `one`.
          position: of `one`.
          segment: of `one`.
          attend: of `one`.
          keys_B: of `one`.
          cache: of `one`, for a single chunk.

        Returns:
          The new carry, and what enters the cache of these positions (None without one).
        """
        x, layer = carry
        run: Any = type(self).one  # type: ignore[attr-defined]  # of the block
        if self.remat is not None:
            run = nn.remat(run, policy=self.remat, prevent_cse=False)
        given = (c, position, segment, attend, keys_B)
        if x.shape[0] == 1:
            mine = jax.tree.map(lambda a: a[0], (x, *given))
            x, rows = run(self, mine[0], layer, *mine[1:], cache)
            return (x[None], layer + 1), rows
        walk = nn.scan(
            lambda block, _, x, *own: ((), run(block, x, layer, *own, None)[0]),
            variable_broadcast="params",
            split_rngs={"params": False},
            check_constancy_invariants=self.is_initializing(),
        )
        _, x = walk(self, (), x, *given)
        return (constrain(x, None, "batch", "length", None), layer + 1), None


def stacked(block: type[Walk], depth: int, unroll: int, begins: bool) -> Any:
    """`depth` blocks with parameters of their own, one after the other; takes a block's fields.

    Args:
      block: class of the block.
      depth: number of blocks.
      unroll: blocks side by side in the program.
      begins: whether the parameters are made now. Then Flax looks for constants of the loop by
        tracing it once more, on which the draws of the first parameters depend.
    """
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast,) * 5 + (0,),
        length=depth,
        unroll=min(unroll, depth),
        check_constancy_invariants=begins,
    )


def through(
    blocks: Any,
    x: Array,
    c: Array | None,
    place: Any,
    cond: Cond,
    keys_B: Array | None,
    cache: Any,
    *,
    chunks: int,
    causal: bool,
    block: int = 0,
) -> tuple[Array, Any]:
    """A batch through a stack of blocks, at most `chunks` pieces at a time.

    Args:
      blocks: of `stacked`.
      x: [B, L, D].
      c: conditioning, [B, C] or [B, L, C], or None.
      place: where positions are, a tree of [L, ...] or [B, L, ...] as `cond.position` is.
      cond: documents and who sees whom within them.
      keys_B: a PRNG key per example for dropout; None = no dropout.
      cache: of the positions before; None = all positions are here.
      chunks: an upper limit: a batch that it does not divide takes the most that does.
      causal: who sees whom, where `cond` does not say.
      block: the same, of blocks of so many places; 0 = there are none.

    Returns:
      x after the last block, and the cache with these positions (None without one).
    """
    x = constrain(x, "batch", "length", None)
    shape = x.shape
    count = chunk_count(shape[0], chunks if cache is None else 1)
    alike = lambda a: jnp.broadcast_to(a, (count, *a.shape))
    by_row = cond.position is not None and cond.position.ndim == 2
    place = chunked(place, count) if by_row else jax.tree.map(alike, place)
    own = Attend("block", size=block) if block else Attend("causal" if causal else "full")
    attend = cond.attend or own
    attend = attend.drawn(shape[1])
    mask = attend.mask
    x, by_chunk, segment, own, keys = chunked(
        (x, c, cond.segment, dataclasses.replace(attend, mask=None), keys_B), count
    )
    if mask is not None:  # one for all rows stays one
        own = dataclasses.replace(own, mask=alike(mask) if mask.ndim == 2 else chunked(mask, count))
    carry = constrain(x, None, "batch", "length", None), jnp.zeros((), jnp.int32)
    (x, _), rows = blocks(carry, by_chunk, place, segment, own, keys, cache)
    cache = None if cache is None else cache.filled(rows)
    return constrain(x.swapaxes(0, 1).reshape(shape), "batch", "length", None), cache


def again(
    module: Any,
    x: Array,
    c: Array | None,
    place: Any,
    cond: Cond,
    keys_B: Array | None,
    *,
    chunks: int,
    causal: bool,
) -> Array:
    """X after the further loops of a network through its own blocks.

    With `cond.chance` u the loops are least_loops + floor(u (loops - least_loops + 1)): those after
    them are left out, in the gradient too.

    Args:
      module: a network with `blocks` and a config with loops.
      x: [B, L, D] after the first.
      c: of `through`.
      place: of `through`.
      cond: of `through`.
      keys_B: of `through`; every loop has dropout of its own.
      chunks: of `through`.
      causal: of `through`.
    """
    least, most = module.config.least_loops, module.config.loops
    u, told = cond.chance, cond._replace(chance=None)

    def loop(module, x, i):
        keys = None if keys_B is None else fold(keys_B, LOOPS_FROM + i)
        run = lambda module, x: through(
            module.blocks, x, c, place, told, keys, None, chunks=chunks, causal=causal
        )[0]
        if u is None:
            return run(module, x), None
        count = least + jnp.floor(u * (most - least + 1)).astype(jnp.int32)
        with jax.named_scope(LOOPS):
            return nn.cond(i < count, run, lambda _, x: x, module, x), None

    scan = nn.scan(
        loop,
        variable_broadcast="params",
        split_rngs={"params": False},
        length=most - 1,
        check_constancy_invariants=module.is_initializing(),
    )
    return scan(module, x, 1 + jnp.arange(most - 1))[0]


def chunk_count(batch: int, most: int) -> int:
    """The largest number of chunks up to `most` that cuts every data shard's rows evenly."""
    shards = pieces("batch")
    each = batch // shards if batch % shards == 0 else 1
    return max(d for d in range(1, most + 1) if each % d == 0)


def chunked(tree: Any, count: int) -> Any:
    """[B, ...] to [C, B / C, ...]: every chunk takes rows of every data shard, so none moves."""
    return jax.tree.map(lambda a: a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1), tree)
