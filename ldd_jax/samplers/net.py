"""The network as a step sees it: a denoiser with its process and read-out, read row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core import positions, vocabulary_tiles
from ldd_jax.core.types import Array, Cond, Denoiser, Head, Process, Trunk
from ldd_jax.denoisers.base import few
from ldd_jax.samplers.dictation import Dictation
from ldd_jax.samplers.latents import Latent, Watched, taken_back
from ldd_jax.samplers.logits import Readout
from ldd_jax.samplers.state import SampleState


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
            length=shape[1],
        )
        return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)
