"""What a step sees and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core import positions, vocabulary_tiles
from ldd_jax.core.types import Array, Cond, Denoiser, Draw, Head, Process, Trunk
from ldd_jax.denoisers.base import few
from ldd_jax.samplers.dictation import Dictation, Way
from ldd_jax.samplers.latents import Latent, Watched, taken_back
from ldd_jax.samplers.logits import Readout


class Clamp(NamedTuple):
    """Conditions: tokens [B, L] fixed where `fixed` [B, L]; `segment` [B, L] 0 marks padding.

    `prompt` [B, L]: what of the fixed is the condition, and not text made before or noise still
    ahead; None = all of it.
    """

    tokens: Any
    fixed: Array
    segment: Array | None = None
    prompt: Array | None = None


class SampleState(NamedTuple):
    """What sampling carries from step to step.

    z: tokens [B, L], or a tree of [B, L, ...]; clock: where the reverse process stands, [B] for a
    time a row, [B, L] or a tree where positions have their own; h: opaque latent; free [B, L]:
    neither clamped nor padding; calls [B]: network passes of each row.
    memory: what a step keeps for itself (confidences, caches), from `Step.init`;
    its leaves have a leading B. prompt [B, L]: the condition (`Clamp`); None = all that is not
    free. lawless [B]: rows that were to be drawn from no law (`core.draws.NO_LAW`); their tokens
    mean nothing.
    """

    z: Any
    clock: Any
    h: Any
    free: Array
    calls: Array
    memory: Any = ()
    prompt: Array | None = None
    lawless: Array | None = None


@struct.dataclass
class Views:
    """One head read several times: features [N, ..., D] to logits [N, ..., V]."""

    head: Head

    def __call__(self, features: Array) -> Array:
        """All views of a row in one projection."""
        logits = self.head(features.reshape(-1, features.shape[-1]))
        return logits.reshape(*features.shape[:-1], -1)


@dataclasses.dataclass(frozen=True)
class Net:
    """A denoiser with its process and read-out settings; never hands out [B, L, V] logits.

    `policy` says what becomes of the latent at a call, `number` which step the call belongs to,
    `time` and `steps` are the grid's, i -> t_i and its intervals; `sample` sets all of them.
    `dictation`: a text that is priced and not drawn (`samplers.dictation`). `unit`: patch of each
    position, [B, L], of a network that has to be told (`Cond.unit`); `signal`: points [B, L, C]
    that it is told. `look` (net, trunk, state): what is kept of every call, beside its latent.
    """

    denoiser: Denoiser
    process: Process
    readout: Readout = Readout()
    tile: int = 0
    groups: int = 1
    label: Array | None = None
    policy: Latent = Latent()
    number: Array | int = 0
    time: Callable[[Array], Array] | None = None
    steps: Array | int = 0
    dictation: Dictation | None = None
    unit: Array | None = None
    signal: Array | None = None
    look: Callable[[Net, Trunk, SampleState], Any] | None = None

    @property
    def passes(self) -> int:
        """Network passes of one call."""
        return 1

    @property
    def plain(self) -> Net:
        """The same without temperature and truncation."""
        return dataclasses.replace(self, readout=Readout())

    @property
    def uncarried(self) -> Net:
        """The same with every latent taken as it is handed over."""
        return dataclasses.replace(self, policy=Latent())

    def few(self, rows: Array) -> Net:
        """Of some rows of a batch, [N].

        A subclass that holds more by row overrides it.
        """
        own = (self.label, self.unit, self.signal)
        label, unit, signal = jax.tree.map(lambda a: a[rows], own)
        net = dataclasses.replace(self, denoiser=few(self.denoiser, rows))
        return dataclasses.replace(net, label=label, unit=unit, signal=signal)

    def latent(self, batch: int, length: int) -> Any:
        """H before the first step."""
        return self.denoiser.latent(batch, length)

    def given(self, h: Any) -> Any:
        """What a call gets in the place of h."""
        return self.policy.given(h, self.number)

    def cond(self, state: SampleState, segment: Array | None) -> Cond:
        """What the network is told beside the state's tokens."""
        clock = self.process.conditioning(state.clock)
        own = Cond(clock=clock, segment=segment, label=self.label)
        return own._replace(unit=self.unit, signal=self.signal)

    def trunk(self, state: SampleState, segment: Array | None = None) -> Trunk:
        """One network call; with a `look` its latent holds what was seen, too (`Watched`)."""
        if self.look is None:
            return self.call(state, segment)
        bare = dataclasses.replace(self, look=None)
        trunk = bare.call(state._replace(h=state.h.h), segment)
        return trunk._replace(latent=Watched(trunk.latent, self.look(bare, trunk, state)))

    def call(self, state: SampleState, segment: Array | None = None) -> Trunk:
        """The call at the state's clock; the policy gives and keeps the latent."""
        h = self.given(state.h)
        trunk = self.denoiser.trunk(state.z, self.cond(state, segment), h)
        return trunk._replace(latent=self.policy.kept(h, trunk.latent, self.number))

    def taken_back(self, seen: Array, z: Array, h: Any) -> Any:
        """The latent of a call, less what tokens have told it that are masked again.

        `sample` asks for every step; a rule whose calls see other tokens than those that the step
        begins with asks between them.

        Args:
          seen: tokens that the call saw, [B, L].
          z: tokens after it, [B, L].
          h: the latent that it returned.

        Raises:
          UserError: for a latent that is not by position.
        """
        if not self.policy.reset_on_remask:
            return h
        hidden = lambda z: self.process.words.scored(self.process.of_tokens(z))
        return taken_back(hidden(z) & ~hidden(seen), h)

    def rows(
        self,
        fn: Callable,
        trunk: Trunk,
        z: Any,
        clock: Any,
        args: Any,
        where: Array | None = None,
    ) -> Any:
        """fn(prediction [N, V], z [N], t [N], args) over the rows `where`, as [B, L, ...].

        Args:
          fn: its results have a leading N.
          trunk: of the call that is read, of `trunk`.
          z: the state that the call saw, [B, L].
          clock: at the call; [B], [B, L] or a tree.
          args: a pytree of [B * L, ...] arrays (draws by row among them).
          where: rows that are wanted, [B, L]; None = all. With tiles only these are projected; the
            others' output has no meaning.
        """
        one = lambda preds, z, t, args: fn(preds[0], z, t, args)
        return self.rows_of_both(one, trunk, z, clock, args, where)

    def rows_of_both(
        self,
        fn: Callable,
        trunk: Trunk,
        z: Any,
        clock: Any,
        args: Any,
        where: Array | None = None,
    ) -> Any:
        """`rows` with fn((prediction to draw from, the network's own), z, t, args).

        Temperature and truncation belong to the token that is drawn; how sure the network is, they
        do not say.

        `fn`, `trunk`, `z`, `clock`, `args` and `where` are those of `rows`, with the pair as the
        first argument of `fn`.
        """

        def walk(fn, args):
            def read(logits, inner):
                (z, t, more), args = inner
                drawn = self.predict(logits, z, t, more)
                same = self.readout == Readout()
                own = drawn if same else self.plain.predict(logits, z, t, more)
                return fn((drawn, own), z, t, args)

            inner = (self._inputs(z, clock), args)
            features = positions.flat(trunk.features)
            return self._walk(read, features, inner, positions.shape(z), where)

        if self.dictation is not None:
            return self.dictation.rows(self, fn, args, where, walk)
        return walk(fn, args)

    def rows_of_two(
        self,
        fn: Callable,
        first: tuple[Trunk, Any, Any],
        second: tuple[Trunk, Any, Any],
        args: Any,
        where: Array | None = None,
    ) -> Any:
        """`rows` over two network calls (trunk, z, clock): fn((pred, z, t), (pred, z, t), args).

        The first call's rows are projected again instead of being kept: keeping them would take the
        [B, L, V] array that tiles avoid.

        Args:
          fn: its results have a leading N.
          first: (trunk, z, clock) of each call.
          second: (trunk, z, clock) of each call.
          args: of `rows`.
          where: of `rows`.
        """

        def read(logits, inner):
            calls, args = inner
            views = [
                (self.predict(logits[:, i], z, t, more), z, t)
                for i, (z, t, more) in enumerate(calls)
            ]
            return fn(*views, args)

        both = (first, second)
        features = jnp.stack([positions.flat(call[0].features) for call in both], axis=1)
        shape = positions.shape(first[1])
        calls = tuple(self._inputs(z, clock) for _, z, clock in both)
        return self._walk(read, features, (calls, args), shape, where)

    def beside(self, z: Any, clock: Any) -> Any:
        """What a prediction needs besides its logits, by row [B * L, ...]: nothing."""
        del z, clock
        return ()

    def predict(self, logits_NV: Array, z_N: Array, t_N: Array, beside: Any) -> Array:
        """Read-out of the process, then temperature and truncation.

        Args:
          logits_NV: what the head gives.
          z_N: tokens that the call saw.
          t_N: clock of each row.
          beside: of these rows, of `beside`.

        Returns:
          [N, V], see `Process.read`; of tokens to draw from.
        """
        del beside
        process = self.process
        pred = process.read(logits_NV, z_N, t_N)
        return process.with_tokens(pred, self.readout(process.of_tokens(pred), self.number))

    def _inputs(self, z: Any, clock: Any) -> tuple[Any, Any, Any]:
        """Tokens, clocks and what else goes with them, by row."""
        length = positions.shape(z)[1]
        return positions.flat(z), positions.of_rows(clock, length), self.beside(z, clock)

    def _walk(self, read, features, args, shape, where) -> Any:
        head: Any = self.process.head(self.denoiser)
        head = head if features.ndim == 2 else Views(head)
        out = vocabulary_tiles.rows(
            read,
            head,
            features,
            args,
            where=None if where is None else where.reshape(-1),
            tile=self.tile,
            groups=self.groups,
        )
        return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One rule per file; a rule overrides what differs from these defaults.

    calls: network calls of one application. clock: "grid" moves from the state's clock to s on a
    time grid, and the loop sets the clock; "own" is applied until `done`, s is None, and the rule
    sets the clock itself. latent: "native" (carried as in training),
    "untrained" (carried, but in a way no training pass does) or "refused". finishes: the last step
    of a grid leaves nothing to remove. one_way: why the
    rule needs a process whose positions change once, from the mask; "" = it does not. processes: in
    words, where that does not tell. one_clock: why the rule needs the same time at all positions;
    "" = it does not. events: the clock is a number of events that are drawn; False = a time.
    states: what it moves: tokens, points or any. no_stop: why no row of it ends early; "" = it may.
    no_way: why its own likelihood is not known, of a rule without a `way`. trees: it moves all
    parts of a process that is made of several.
    """

    calls: ClassVar[int] = 1
    clock: ClassVar[str] = "grid"
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
