"""Blocks of a network that sees both ways, with keys and values that are kept though they changed.

Fast-dLLM (arXiv 2505.22618). No position of such a network is ever settled: its keys and values
depend on all tokens. They change little while others are revealed, so they are kept for some steps
and a step asks about a part of the row alone. The law is another one: `exact` is False.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.keeping import Keeping
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.loop import sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.rows import Rows
from ldd_jax.samplers.state import Clamp, SampleState
from ldd_jax.samplers.windows import Window

# Scope of the choice among windows.
WINDOWS = "sampling_windows"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Approximate(Keeping):
    """Left to right by blocks of `size`, all masks ahead in view, as `fill` goes.

    A pass over the whole row before a block's first step, and before each `refresh`-th (0 = no
    other), makes keys and values of all positions; it counts as a call. refresh = 1 is `fill`.

    Attributes:
      size: positions of a block.
      refresh: steps between two passes over the row.
    """

    size: int = 32
    refresh: int = 0
    exact: ClassVar[bool] = False
    unshifted: ClassVar[str] = "no latent is carried beside a cache that is kept"

    def __post_init__(self):
        super().__post_init__()
        if self.size < 1 or self.refresh < 0:
            raise ValueError(
                f"size is {self.size}, refresh {self.refresh}; a block has at least 1 position, "
                "and refresh is 0 (once a block) or a number of steps"
            )

    def check(self, process: Process, block: int = 0) -> None:
        """Masked diffusion of a network that sees both ways.

        Raises:
          ValueError: for another.
        """
        super().check(process, block)
        name = self.registered[1]  # type: ignore[attr-defined]
        if not process.absorbing or process.parts or process.by_position:
            raise ValueError(
                f"blocks={name} keeps keys and values of tokens that stand still, and leaves masks "
                "ahead of the block, so it needs masked diffusion"
            )

    def check_network(self, *, latent: bool, timed: bool) -> None:
        """Refuse what changes all keys and values with every step.

        Args:
          latent: whether h is carried.
          timed: whether the network is told the time.

        Raises:
          ValueError: in one line.
        """
        name = self.registered[1]  # type: ignore[attr-defined]
        if latent:
            raise ValueError(
                f"blocks={name}: the carried latent enters below the first layer, so that every "
                "call changes all keys and values; give --latent=off, or blocks=fill"
            )
        if timed:
            raise ValueError(
                f"blocks={name}: this network is told the time, so that every step changes all "
                "keys and values; give blocks=fill"
            )

    def first(self, length: int, window: int, block: int) -> int:
        """A block.

        `length`, `window` and `block` are those of `Blocks.first`.
        """
        del window, block
        return min(self.size, length)

    def kept(self, denoiser: Any, batch: int, length: int) -> Any:
        """Keys and values of a row.

        Args:
          denoiser: the network.
          batch: rows.
          length: positions of one.
        """
        return denoiser.around(batch, length)

    def widths(self, length: int) -> tuple[int, ...]:
        """How many positions a step may ask about, the most first.

        Args:
          length: of the row.
        """
        raise TypeError(f"{type(self).__name__} does not say how wide a window is")

    def shares(self, length: int) -> tuple[float, ...]:
        """Blocks that ask about each width.

        Args:
          length: of the row.
        """
        begins, widths = range(0, length, self.size), self.widths(length)
        chosen = [max(sum(w >= length - b for w in widths) - 1, 0) for b in begins]
        return tuple(chosen.count(i) / len(begins) for i in range(len(widths)))

    def renewals(self, num_steps: int) -> float:
        """Passes over the whole row, as a share of steps.

        Args:
          num_steps: of a block.
        """
        return 1 / (self.refresh or num_steps)

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
        """See `sample_blocks`; positions draw by their place in the window.

        `net`, `step`, `draw`, `prior`, `num_steps`, `window`, `clamp`, `latent`, `record` and `eos`
        are those of `sample_blocks`.
        """
        del window, eos
        clock, (batch, length) = prior[1], prior[0].shape
        self.check_run(net, latent=latent, clamp=clamp, record=record)
        rows, place = Rows.of(prior[0], clamp), jnp.arange(length)
        widths = self.widths(length)

        def block(k: Array, carry: Any) -> Any:
            begin, (z, calls, lawless) = k * self.size, carry
            active = (place >= begin) & (place < begin + self.size)
            fixed = rows.fixed | ~active

            def ask(width: int, z: Array) -> tuple[Array, Array, Array]:
                start = jnp.minimum(begin, length - width)
                cut = lambda a: jax.lax.dynamic_slice_in_dim(a, start, width, axis=1)
                given = Clamp(cut(z), cut(fixed), None, cut(rows.prompt))
                state, _ = sample(
                    net,
                    step,
                    draw.at(step=k),
                    (cut(z), clock),
                    num_steps,
                    clamp=given,
                    latent=latent,
                    window=Window(z, start, self.refresh),
                    **settings,
                )
                made = jax.lax.dynamic_update_slice_in_dim(z, state.z, start, axis=1)
                return made, state.calls, jnp.asarray(state.lawless)

            reach = jnp.stack([width >= length - begin for width in widths])
            number = jnp.maximum(jnp.sum(reach, dtype=jnp.int32) - 1, 0)
            with jax.named_scope(WINDOWS):
                z, own, none = jax.lax.switch(number, [_of(ask, w) for w in widths], z)
            return z, calls + own, lawless | none

        nobody = jnp.zeros(batch, jnp.int32)
        first = (rows.z, nobody, nobody > 0)
        z, calls, lawless = jax.lax.fori_loop(0, -(-length // self.size), block, first)
        return rows.ended(net, z, None, calls, lawless), None


def _of(ask: Any, width: int) -> Any:
    return lambda z: ask(width, z)


@register("blocks", "dual")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Dual(Approximate):
    """Keys and values before and after the block are kept; a step asks about the block.

    Attributes:
      ahead: positions after the block that a step asks about as well.
    """

    ahead: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.ahead < 0:
            raise ValueError(f"ahead is {self.ahead}; it must be 0 or a number of positions")

    def widths(self, length: int) -> tuple[int, ...]:
        """One for all blocks."""
        return (min(self.size + self.ahead, length),)


@register("blocks", "prefix")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefix(Approximate):
    """Keys and values before the block are kept; a step asks about it and all that follows.

    A compiled window has a size that is known: the row, its half, its quarter and so on, the
    smallest that reaches back to the block. Each is a program of its own within the whole.
    """

    def widths(self, length: int) -> tuple[int, ...]:
        """Halves of the row, as long as they hold a block."""
        found = [length]
        while -(-found[-1] // 2) >= self.size:
            found.append(-(-found[-1] // 2))
            if found[-1] == 1:
                break
        return tuple(found)
