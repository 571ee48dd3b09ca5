"""What a rule is: the settings that it states of itself, what it refuses, and one step."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One rule per file; a rule overrides what differs from these defaults.

    calls: network calls of one application. clock: "grid" moves from the state's clock to s on a
    time grid, and the loop sets the clock; "own" is applied until `done`, s is None, and the rule
    sets the clock itself. walks: a rule of its own clock goes along the intervals of the grid, so
    that their number says what it draws from. latent: "native" (carried as in training),
    "untrained" (carried, but in a way no training pass does) or "refused". finishes: the last step
    of a grid leaves nothing to remove. one_way: why the rule needs a process whose positions change
    once, from the mask; "" = it does not. processes: in words, where that does not tell. one_clock:
    why the rule needs the same time at all positions; "" = it does not. events: the clock is a
    number of events that are drawn; False = a time. states: what it moves: tokens, points or any.
    no_stop: why no row of it ends early; "" = it may. no_way: why its own likelihood is not known,
    of a rule without a `way`. trees: it moves all parts of a process that is made of several.
    """

    calls: ClassVar[int] = 1
    clock: ClassVar[str] = "grid"
    walks: ClassVar[bool] = False
    latent: ClassVar[str] = "native"
    finishes: ClassVar[bool] = False
    one_way: ClassVar[str] = ""
    one_clock: ClassVar[str] = ""
    events: ClassVar[bool] = False
    states: ClassVar[str] = "tokens"
    processes: ClassVar[str] = ""
    trees: ClassVar[bool] = False
    no_stop: ClassVar[str] = ""
    no_way: ClassVar[str] = "the rule does not say how it comes to a given text (Step.way)"

    @property
    def counts_steps(self) -> bool:
        """Whether a number of steps and a grid are settings of this rule."""
        return self.clock == "grid" or self.walks

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Refuse what the mathematics does not allow.

        Args:
          process: the forward process.
          latent: whether h is carried.
          timed: whether the network is told the time.

        Raises:
          ValueError: one line that says why and what to do.
        """
        if process.schedule is None and not self.processes:
            raise ValueError(
                "an autoregressive model has no reverse diffusion; its sampling.step is next_token"
            )
        process.check(timed=timed)
        name = self.registered[1]  # type: ignore[attr-defined]
        if process.parts and not self.trees:
            raise ValueError(
                f"sampler {name} moves tokens alone, and process "
                f"{process.registered[1]} is made of {' and '.join(process.parts)} "  # type: ignore[attr-defined]
                "(use joint_flow, ancestral)"
            )
        if self.events != process.counts_events:
            kind = process.registered[1]  # type: ignore[attr-defined]
            raise ValueError(
                f"sampler {name} undoes counted events; process {kind} has none (use ancestral)"
                if self.events
                else f"sampler {name} walks in time, but the clock of process {kind} counts events "
                "(use events)"
            )
        moved = "points" if process.points else "tokens"
        if self.states not in ("any", moved):
            kind = process.registered[1]  # type: ignore[attr-defined]
            raise ValueError(
                f"sampler {name} moves {self.states}, but the states of process {kind} are {moved} "
                f"(use {'geodesic or ancestral' if process.points else 'ancestral'})"
            )
        if self.one_way and not process.absorbing:
            raise ValueError(
                f"sampler {name} {self.one_way}; {type(process).__name__.lower()} diffusion has no "
                "mask (use ancestral, euler, tau_leaping, theta_trapezoidal ...)"
            )
        if self.one_clock and process.by_position:
            raise ValueError(
                f"sampler {name} {self.one_clock}, but the positions of "
                f"{type(process).__name__.lower()} have times of their own (use ancestral, euler)"
            )
        if latent and self.latent == "refused":
            raise ValueError(
                f"sampler {name} cannot carry a latent; switch it off (--latent=off, "
                "latent.reset_every=1) or choose another sampler"
            )

    def init(self, net: Net, state: SampleState) -> Any:
        """The memory before the first step.

        Args:
          net: network with process and read-out.
          state: before the first step; its `memory` is not set yet.

        Returns:
          A pytree whose leaves have a leading B.
        """
        del net, state
        return ()

    def way(self, process: Process) -> Way:
        """How the rule comes to a given text, from which its own likelihood follows.

        Raises:
          ValueError: one line that says why that is not known (`no_way`).
        """
        del process
        name = self.registered[1]  # type: ignore[attr-defined]
        raise ValueError(f"sampler {name}: its own likelihood is not known, as {self.no_way}")

    def done(self, net: Net, state: SampleState) -> Array:
        """Clock "own": rows that need no further step, [B].

        Args:
          net: network with process and read-out.
          state: after a step.

        Raises:
          TypeError: for a rule that walks a grid.
        """
        raise TypeError(f"{type(self).__name__} walks a grid; it is never done")

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """Move the whole batch once.

        Args:
          net: network with process and read-out.
          state: before the step; `free` positions only may change.
          s: clock to move to, of `Process.clock`; None for clock "own".
          draw: all chance of this step; a rule takes sites of it (`at`, `rows`).
          segment: documents [B, L], 0 = padding; None = one.

        Returns:
          The state with new z, h and memory, and with the network's calls added to `calls`; the
          clock too, where it is the rule's own.
        """
        raise TypeError(f"{type(self).__name__} defines no step")


def masked_and_free(net: Net, state: SampleState) -> Array:
    """Positions that a one-way rule still has to reveal, [B, L]."""
    return net.process.scored(state.z) & state.free
