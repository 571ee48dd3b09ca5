"""Rows of any length from a network by blocks: finished blocks are kept as keys and values.

Block diffusion (BD3-LM, arXiv 2503.09573). A block is one run of `loop.sample` on its positions
alone, with whatever rule; what was finished before enters by a cache, exactly, since no finished
position has seen what came after it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond, Draw, Process, Trunk
from ldd_jax.denoisers.base import Around, few
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.keeping import Keeping
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.loop import sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.next_token import PROMPT
from ldd_jax.samplers.rows import Rows
from ldd_jax.samplers.state import Clamp, SampleState

# Scope of the loop over blocks.
BLOCKS = "sampling_blocks"


@struct.dataclass
class AfterCache(Around):
    """A network asked about the positions that follow those of a cache, which stays as it is."""

    past: Any

    def trunk(
        self, z: Array, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Of the block alone; see `Denoiser.trunk`."""
        del cache
        return self.inner.trunk(z, cond, h, key=key, cache=self.past)._replace(cache=None)

    def few(self, rows: Array) -> AfterCache:
        """With the cache of these rows."""
        return super().few(rows).replace(past=self.past.few(rows))


@struct.dataclass
class WithinRow(AfterCache):
    """The same by a pass over the whole row, `past` = (row [B, L], clock of time 0, place)."""

    def trunk(
        self, z: Array, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Of the block; positions before it have h = 0 and time 0, those after it are not seen."""
        del cache
        row, ended, place = self.past
        put = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, place, axis=1)
        take = lambda a: jax.lax.dynamic_slice_in_dim(a, place, z.shape[1], axis=1)
        if cond.clock is not None:
            clock = jnp.broadcast_to(positions.column(cond.clock), z.shape)
            cond = cond._replace(clock=put(jnp.broadcast_to(ended[:, None], row.shape), clock))
        if h is not None:
            h = put(self.inner.latent(*row.shape), h)
        out = self.inner.trunk(put(row, z), cond, h, key=key)
        return Trunk(*jax.tree.map(take, (out.features, out.latent)))

    def few(self, rows: Array) -> WithinRow:
        """With these rows."""
        row, ended, place = self.past
        return self.replace(inner=few(self.inner, rows), past=(row[rows], ended[rows], place))  # type: ignore[attr-defined]


@register("blocks", "cached")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cached(Keeping):
    """The blocks of the network (`model.block`), each `num_steps` steps, finished ones in a cache.

    A prompt's whole blocks fill the cache in one call; a finished block enters by one more. Both
    count as calls. The latent is that of the block at work: a new one begins with h = 0, and the
    cache is filled with h = 0, as in training. Tokens that are given after a gap do not act back
    on the blocks before them.

    Attributes:
      stop: a row is finished after the tokenizer's EOS, which fills the rest of it.
    """

    stop: bool = False
    whole_rows: ClassVar[bool] = False
    unshifted: ClassVar[str] = "a block begins with h = 0, as in training"

    @property
    def stops(self) -> bool:
        """Whether a row is finished after EOS."""
        return self.stop

    def check(self, process: Process, block: int = 0) -> None:
        """A network by blocks only.

        Raises:
          ValueError: for another.
        """
        if not block or process.schedule is None:
            raise ValueError(
                "blocks=cached keeps what no later token changes, so it needs a network by blocks "
                "(method=block, model.block); use blocks=whole, fill or slide"
            )

    def padded(self, length: int, block: int) -> int:
        """Whole blocks: what is beyond `length` is made and left out."""
        return -(-length // block) * block

    def first(self, length: int, window: int, block: int) -> int:
        """A block of the network.

        `length`, `window` and `block` are those of `Blocks.first`.
        """
        del window
        return min(block, length)

    def sample(
        self,
        net: Net,
        step: Step,
        draw: Draw,
        prior: Any,
        num_steps: Any,
        *,
        window: int,
        clamp: Clamp | None,
        latent: Latent,
        record: Any,
        eos: int | None,
        **settings: Any,
    ) -> tuple[SampleState, Any]:
        """See `sample_blocks`; the row's length is a multiple of the block.

        `net`, `step`, `draw`, `prior`, `num_steps`, `window`, `clamp`, `latent`, `record` and `eos`
        are those of `sample_blocks`.
        """
        del window
        self.check_run(net, latent=latent, clamp=clamp, record=record)
        run = Run.of(self, net, prior, clamp, eos)
        one = lambda net, z, clock, given, draw: sample(
            net, step, draw, (z, clock), num_steps, clamp=given, latent=latent, **settings
        )[0]
        return run.rows(one, draw, prior[1]), None


@register("blocks", "recomputed")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recomputed(Cached):
    """The same law without a cache: every call is a pass over the whole row.

    What `cached` is tested and timed against.
    """

    whole_rows: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class Run:
    """One batch of rows, z [B, L], in blocks of `size`."""

    blocks: Cached
    net: Net
    begun: Rows
    size: int
    eos: int | None

    @classmethod
    def of(cls, blocks: Cached, net: Net, prior: Any, clamp: Clamp | None, eos: int | None) -> Run:
        """Before the first block.

        Args:
          blocks: whether rows stop, and how finished blocks are seen.
          net: a network by blocks.
          prior: (z, clock) at t = 1, of the whole row.
          clamp: of the whole row; None = nothing is given.
          eos: the token that ends a row; None = there is none.

        Raises:
          ValueError: for a row that is not made of whole blocks.
        """
        z, size = prior[0], net.denoiser.block
        if z.shape[1] % size:
            raise ValueError(f"a row of {z.shape[1]} is not made of whole blocks of {size}")
        return cls(blocks, net, Rows.of(z, clamp), size, eos if blocks.stops else None)

    @property
    def ended(self) -> Array:
        """What the network is told of time 0, [B]."""
        zero = jnp.zeros(self.begun.z.shape[0], jnp.result_type(float))
        return self.net.process.clock(zero, self.size)

    def read(self, z: Array, cache: Any) -> Any:
        """The cache with clean tokens after those that it holds; no latent."""
        ended = SampleState(z, self.ended, None, self.begun.fixed, self.begun.fixed)
        cond = self.net.cond(ended, None)  # which reads the clock alone
        return self.net.denoiser.trunk(z, cond, cache=cache).cache

    def at(self, tree: Any, k: Array) -> Any:
        """Block k of leaves [B, L, ...]; what is by row stays."""
        cut = lambda a: jax.lax.dynamic_slice_in_dim(a, k * self.size, self.size, axis=1)
        return jax.tree.map(lambda a: cut(a) if a.ndim > 1 else a, tree)

    def past(self, z: Array, cache: Any, k: Array) -> Any:
        """The network that sees what was finished before block k.

        Args:
          z: the row, for a pass over it.
          cache: of the blocks before; () where there is none.
          k: number of the block.
        """
        if not self.blocks.whole_rows:
            return AfterCache(self.net.denoiser, cache)
        ended = self.net.process.conditioning(self.ended)
        return WithinRow(self.net.denoiser, (z, ended, k * self.size))

    def rows(self, one: Any, draw: Draw, clock: Any) -> SampleState:
        """All blocks in turn, until all rows are finished.

        Args:
          one: (net, z, clock, clamp, draw) to the state of a finished block.
          draw: block k draws from draw.at(step=k).
          clock: of the prior.
        """
        (z, given, prompts), (batch, length) = self.begun, self.begun.z.shape
        whole = jnp.all(given.reshape(batch, -1, self.size), axis=(0, 2))  # nothing to make
        begin = jnp.sum(jnp.cumprod(whole), dtype=jnp.int32)
        number = jnp.arange(1, whole.size + 1, dtype=jnp.int32)
        end = jnp.max(jnp.where(whole, 0, number))
        cache: Any = ()
        if not self.blocks.whole_rows:
            cache = self.net.denoiser.cache(batch, length)
            with jax.named_scope(PROMPT):
                cache = jax.lax.cond(begin > 0, lambda c: self.read(z, c), lambda c: c, cache)
            cache = cache._replace(seen=jnp.full_like(cache.seen, begin * self.size))
        asked = jnp.broadcast_to(begin > 0, batch) & (not self.blocks.whole_rows)

        def more(carry):
            return (carry[0] < end) & ~jnp.all(carry[-1])

        def block(carry):
            k, z, cache, calls, lawless, over = carry
            fixed = self.at(given, k) | over[:, None]
            mine, prompt = self.at((z, prompts), k)
            net = dataclasses.replace(self.net, denoiser=self.past(z, cache, k))
            clamp = Clamp(mine, fixed, None, prompt)
            state = one(net, mine, self.at(clock, k), clamp, draw.at(step=k))
            calls = calls + state.calls
            if not self.blocks.whole_rows:
                cache = self.read(state.z, cache)
                calls = calls + ~over
            z = jax.lax.dynamic_update_slice_in_dim(z, state.z, k * self.size, axis=1)
            if self.eos is not None:
                over = over | jnp.any((state.z == self.eos) & ~fixed, axis=1)
            return k + 1, z, cache, calls, lawless | state.lawless, over | state.lawless

        none = jnp.zeros(batch, bool)
        first = (begin, z, cache, asked.astype(jnp.int32), none, none)
        with jax.named_scope(BLOCKS):
            _, z, _, calls, lawless, _ = jax.lax.while_loop(more, block, first)
        if self.eos is not None:
            hit = (z == self.eos) & ~given
            after = jnp.cumsum(hit, axis=1) - hit > 0
            z = jnp.where(after & ~given, jnp.asarray(self.eos, z.dtype), z)
        return self.begun.ended(self.net, z, None, calls, lawless)
