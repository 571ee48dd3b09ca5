"""How a row of any length is divided: whole, by blocks in a window, or by one that slides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.latents import Latent
from ldd_jax.samplers.loop import sample
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.sliding import Spans, slide, spans_to
from ldd_jax.samplers.state import Clamp, SampleState

LATENTS = ("shift", "reset")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """How a row is divided; `latent` says what a new block finds of the one before.

    "shift": h moves with its positions when the window slides, h = 0 at new ones; "reset": h = 0
    everywhere. exact: no cache is kept that tokens since then would have changed. whole: a row is
    made at once, and the network sees all of it.
    """

    latent: str = "shift"
    exact: ClassVar[bool] = True
    whole: ClassVar[bool] = False

    def __post_init__(self):
        if self.latent not in LATENTS:
            raise ValueError(f"latent is {self.latent!r}; it must be one of {', '.join(LATENTS)}")

    def check(self, process: Process, block: int = 0) -> None:
        """Refuse what the mathematics does not allow.

        Args:
          process: the forward side.
          block: positions of a block that the network knows of; 0 = it sees all.

        Raises:
          ValueError: one line that says why and what to do.
        """
        if block:
            raise ValueError(
                f"this network goes by blocks of {block}, and sees nothing after the one at work; "
                "use blocks=cached"
            )
        if process.schedule is None:
            raise ValueError("an autoregressive model goes left to right already; use blocks=whole")

    def check_network(self, *, latent: bool, timed: bool) -> None:
        """Refuse a network that is asked otherwise than in these blocks; here none.

        Args:
          latent: whether h is carried.
          timed: whether the network is told the time.
        """

    def kept(self, denoiser: Any, batch: int, length: int) -> Any:
        """What stands in memory of finished positions.

        Args:
          denoiser: the network.
          batch: rows.
          length: positions of one, whole blocks.

        Raises:
          UserError: for a network that keeps nothing.
        """
        return denoiser.cache(batch, length)

    def shares(self, length: int) -> tuple[float, ...]:
        """Of the programs that a row is made with, how often each runs; here there is one.

        Args:
          length: of the row.
        """
        del length
        return (1.0,)

    def renewals(self, num_steps: int) -> float:
        """Passes that make a cache anew, as a share of steps.

        Args:
          num_steps: of a block.
        """
        del num_steps
        return 0.0

    @property
    def stops(self) -> bool:
        """Whether a row is finished after EOS."""
        return False

    def padded(self, length: int, block: int) -> int:
        """Positions that are made for a row of `length`, at least as many."""
        del block
        return length

    def spans(self, length: int, window: int) -> Spans:
        """The blocks of a row of `length` for a network that sees `window` positions."""
        raise TypeError(f"{type(self).__name__} defines no spans")

    def first(self, length: int, window: int, block: int) -> int:
        """How many positions are finished first, together.

        Args:
          length: of the row.
          window: positions that the network sees.
          block: positions of a block that the network knows of; 0 = it sees all.
        """
        del block
        return int(self.spans(length, window).end[0])

    def sample(
        self,
        net: Net,
        step: Step,
        draw: Draw,
        prior: tuple[Any, Any],
        num_steps: Array | int,
        *,
        window: int,
        clamp: Clamp | None,
        latent: Latent,
        record: Callable[[SampleState], Any] | None,
        eos: int | None,
        **settings: Any,
    ) -> tuple[SampleState, Any]:
        """See `sample_blocks`; here in a window that slides.

        `net`, `step`, `draw`, `prior`, `num_steps`, `window`, `clamp`, `latent`, `record` and `eos`
        are those of `sample_blocks`.
        """
        del eos
        length = positions.shape(prior[0])[1]
        self.check(net.process)
        spans = self.spans(length, min(window, length))
        run = lambda draw, z, clamp, h: sample(
            net,
            step,
            draw,
            z,
            num_steps,
            clamp=clamp,
            latent=latent,
            h=h,
            record=record,
            **settings,
        )
        if len(spans.end) == 1:
            return run(draw, prior, clamp, None)
        if record is not None:
            raise ValueError("a record is of one block; use blocks=whole")
        seen, shift = min(window, length), self.latent == "shift"
        return slide(run, net, draw, prior, clamp, spans, seen, shift=shift), None


@register("blocks", "whole")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Blocks):
    """One block: the network sees the whole row, whatever its length."""

    whole: ClassVar[bool] = True

    def check(self, process: Process, block: int = 0) -> None:
        """Always possible but for a network by blocks."""
        if process.schedule is not None:
            super().check(process, block)

    def spans(self, length: int, window: int) -> Spans:
        """The row."""
        del window
        return spans_to([length], length, length)


@register("blocks", "fill")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fill(Blocks):
    """Semi-autoregressive filling: blocks of `size`, all masks still ahead in view.

    Longer rows than the window slide on when it is full. Uniform diffusion is refused: what lies
    ahead of a block would be noise of another time than the block's.
    """

    size: int = 32

    def __post_init__(self):
        super().__post_init__()
        _positive(self.size)

    def check(self, process: Process, block: int = 0) -> None:
        """Masked diffusion only."""
        super().check(process, block)
        if not process.absorbing:
            raise ValueError(
                "blocks=fill leaves noise of time 1 ahead of the block, which only masked "
                "diffusion can tell from tokens; use blocks=slide"
            )

    def spans(self, length: int, window: int) -> Spans:
        """Ends at size, 2 size, ..."""
        return spans_to(list(range(self.size, length + self.size, self.size)), length, window)


@register("blocks", "slide")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Slide(Blocks):
    """A first block of a whole window, then `size` more at a time, the rest of the window clamped.

    size = window / 2 is the semi-autoregressive generation of MDLM (arXiv 2406.07524).
    """

    size: int = 32

    def __post_init__(self):
        super().__post_init__()
        _positive(self.size)

    def spans(self, length: int, window: int) -> Spans:
        """Ends at window, window + size, ..."""
        if self.size > window:
            raise ValueError(f"size is {self.size}; the window has {window} positions")
        return spans_to(list(range(window, length + self.size, self.size)), length, window)


def _positive(size: int) -> None:
    if size < 1:
        raise ValueError(f"size is {size}; a block has at least 1 position")


def sample_blocks(
    net: Net,
    step: Step,
    draw: Draw,
    prior: tuple[Any, Any],
    num_steps: Array | int,
    *,
    blocks: Blocks,
    window: int,
    clamp: Clamp | None = None,
    latent: Latent = Latent(),  # noqa: B008 (frozen)
    record: Callable[[SampleState], Any] | None = None,
    eos: int | None = None,
    **settings: Any,
) -> tuple[SampleState, Any]:
    """`loop.sample` block after block, each of `num_steps` steps, in one compiled loop.

    Args:
      net: as of `sample`.
      step: as of `sample`.
      draw: block k draws from draw.at(step=k) if there are several.
      prior: (z, clock) at t = 1, of the whole row of N positions.
      num_steps: of each block.
      blocks: how the row is divided.
      window: positions that the network was trained on; at most so many are seen at once.
      clamp: of the whole row.
      latent: as of `sample`.
      record: as of `sample`; of a single block only.
      eos: the token that ends a row, for blocks that stop there; None = there is none.
      **settings: grid and tail, as of `sample`.

    Returns:
      The state of the whole row: z of N positions, calls over all blocks; h is that of the last
      window. And the trace, or None.

    Raises:
      ValueError: for a process that cannot be divided so, a block larger than the window, or a
        record of several blocks.
    """
    return blocks.sample(
        net,
        step,
        draw,
        prior,
        num_steps,
        window=window,
        clamp=clamp,
        latent=latent,
        record=record,
        eos=eos,
        **settings,
    )
