"""Rows that end before the grid does: what is looked at, when it is enough, and the bookkeeping.

The criteria of DiffusionGemma's sampler (google-deepmind/gemma, `diffusion/_early_stopping.py`):
entropy of the prediction, its text unchanged, both at once. They speak of the last network call of
a step. A row that stops keeps the tokens and the clock after that step and skips all further ones;
the tail then removes what noise is left, unless nothing is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.draws import most_probable
from ldd_jax.core.kl import entropy
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Trunk
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.latents import Watched
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


class Seen(NamedTuple):
    """Of a network call: `text` [B, L], the likeliest tokens where something is to be made and what
    stands elsewhere; `entropy` [B], mean over the former, nats, 0 without them.
    """

    text: Array
    entropy: Array


class Notes(NamedTuple):
    """Of a stop by row: `memory`, leaves [B, ...], and which rows are over, [B]."""

    memory: Any
    over: Array


def look(net: Net, trunk: Trunk, state: SampleState) -> Seen:
    """What a call says of the whole row, by the network's own law; no call more.

    Args:
      net: process and read-out.
      trunk: of the call.
      state: as the network saw it.
    """
    process = net.process
    wanted = process.words.scored(process.of_tokens(state.z)) & state.free

    def read(preds, z, t, args):
        own = process.clean(preds[1], z, t)
        return Seen(most_probable(own), entropy(own))

    found = net.rows_of_both(read, trunk, state.z, state.clock, (), where=wanted)
    shown = process.shown(state.z)
    total = jnp.sum(jnp.where(wanted, found.entropy, 0), axis=1)
    return Seen(
        jnp.where(wanted, found.text.astype(shown.dtype), shown),
        total / jnp.maximum(jnp.sum(wanted, axis=1), 1),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop:
    """When a row is good enough; `watches` is False where no call has to be looked at."""

    watches: ClassVar[bool] = True

    def check(self, step: Step, tail: str) -> None:
        """Refuse a rule that no row leaves early.

        Args:
          step: the rule.
          tail: what removes the noise that is left.

        Raises:
          ValueError: one line that says why.
        """
        if not self.watches:
            return
        if step.no_stop:
            name = step.registered[1]  # type: ignore[attr-defined]
            raise ValueError(f"sampler {name} {step.no_stop}; use stop=never")
        if tail == "none":
            raise ValueError("a row that stops early has noise left, and tail none leaves it there")

    def init(self, seen: Seen) -> Any:
        """Memory before the first call.

        Args:
          seen: of no call: a text that is none, an entropy without end.
        """
        del seen
        return ()

    def __call__(self, memory: Any, seen: Seen) -> tuple[Any, Array]:
        """Memory after a call, and which rows may stop, [B].

        Args:
          memory: of the calls before.
          seen: of this one.
        """
        raise TypeError(f"{type(self).__name__} never stops")


@register("stop", "never")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Never(Stop):
    """All steps are taken."""

    watches = False


@register("stop", "entropy")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LowEntropy(Stop):
    """Mean entropy of what is still to be made at most `threshold`, nats a position."""

    threshold: float = 0.005

    def __post_init__(self):
        if not self.threshold >= 0:
            raise ValueError(f"threshold is {self.threshold}; it must be 0 or more (nats)")

    def __call__(self, memory: Any, seen: Seen) -> tuple[Any, Array]:
        """By this call alone."""
        return memory, seen.entropy <= self.threshold


@register("stop", "still")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Still(Stop):
    """The likeliest text has stayed the same over `steps` steps, `steps` + 1 calls in a row."""

    steps: int = 1

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a text is compared with at least 1 before it")

    def init(self, seen: Seen) -> Any:
        """The last text, and for how many steps it has stayed, [B]."""
        return seen.text, jnp.zeros(seen.entropy.shape, jnp.int32)

    def __call__(self, memory: Any, seen: Seen) -> tuple[Any, Array]:
        """By this text and those before."""
        before, count = memory
        same = jnp.all(seen.text == before, axis=1)
        count = jnp.where(same, count + 1, 0)
        return (seen.text, count), count >= self.steps


@register("stop", "chained")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Chained(Stop):
    """Both agree, at the same call; one of them may be a chain itself."""

    first: Any = component("stop", LowEntropy)
    second: Any = component("stop", Still)

    def __post_init__(self):
        if not (self.first.watches and self.second.watches):
            raise ValueError("a chain with never in it never stops; use stop=never")

    def init(self, seen: Seen) -> Any:
        """Of both."""
        return self.first.init(seen), self.second.init(seen)

    def __call__(self, memory: Any, seen: Seen) -> tuple[Any, Array]:
        """By both."""
        found = [stop(own, seen) for stop, own in zip((self.first, self.second), memory)]
        return tuple(memory for memory, _ in found), found[0][1] & found[1][1]


@dataclasses.dataclass(frozen=True)
class Watch:
    """A loop whose carry is (state, notes); without a stop the notes are None, and all is as ever.

    Attributes:
      stop: when rows end.
    """

    stop: Stop

    @property
    def look(self) -> Callable[[Net, Trunk, SampleState], Any] | None:
        """What the loop's network keeps of its calls."""
        return look if self.stop.watches else None

    def begin(self, net: Net, state: SampleState) -> tuple[SampleState, Notes | None]:
        """The carry before the first step.

        Args:
          net: its process shows the tokens.
          state: with the rule's memory.
        """
        if not self.stop.watches:
            return state, None
        shown = net.process.shown(state.z)
        real = jnp.result_type(float)
        never = Seen(jnp.full_like(shown, -1), jnp.full(shown.shape[:1], jnp.inf, real))
        notes = Notes(self.stop.init(never), jnp.zeros(shown.shape[:1], bool))
        return state._replace(h=Watched(state.h, never)), notes

    def after(
        self, carry: tuple[SampleState, Notes | None], new: SampleState
    ) -> tuple[SampleState, Notes | None]:
        """The carry after a step; rows that are over stay as they are.

        Args:
          carry: before it.
          new: the state that it made.
        """
        state, notes = carry
        if notes is None:
            return new, None
        new = choose(notes.over, state, new)
        memory, enough = self.stop(notes.memory, new.h.seen)
        return new, Notes(choose(notes.over, notes.memory, memory), notes.over | enough)

    def over(self, notes: Notes | None) -> Array | bool:
        """Rows that have ended, [B]."""
        return False if notes is None else notes.over

    def bare(self, state: SampleState) -> SampleState:
        """The state with its latent alone."""
        return state._replace(h=state.h.h) if self.stop.watches else state


def choose(keep_B: Array, old: Any, new: Any) -> Any:
    """Old or new, row by row.

    Args:
      keep_B: True where a row stays old.
      old: a pytree, leaves [B, ...].
      new: another in the same structure.
    """
    pick = lambda a, b: jnp.where(keep_B.reshape(-1, *(1,) * (b.ndim - 1)), a, b)
    return jax.tree.map(pick, old, new)
