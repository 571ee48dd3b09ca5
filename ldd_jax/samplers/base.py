"""What a step sees and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core import rows as core_rows
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond, Denoiser, Draw, Head, Process, Trunk
from ldd_jax.samplers.logits import Readout


class Clamp(NamedTuple):
    """Conditions: tokens [B, L] fixed where `fixed` [B, L]; `segment` [B, L] 0 marks padding."""

    tokens: Array
    fixed: Array
    segment: Array | None = None


class SampleState(NamedTuple):
    """z [B, L]; h opaque latent; free [B, L] neither clamped nor padding; calls [B] per row.

    memory: what a step keeps for itself (confidences, caches, a time per row), from `Step.init`;
    its leaves have a leading B.
    """

    z: Array
    h: Any
    free: Array
    calls: Array
    memory: Any = ()


@register("latent", "latent")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent:
    """What happens to h between steps.

    `reset_every` k > 0 puts h = 0 before steps 0, k, 2k, ... (1 = the latent is off);
    `frozen` keeps the latent of the first step for all later ones; `reset_on_remask` puts h = 0 at
    positions that a step masks again, whose latent has seen the token taken back.
    """

    reset_every: int = 0
    frozen: bool = False
    reset_on_remask: bool = False

    def __post_init__(self):
        if self.reset_every < 0:
            raise ValueError(f"reset_every is {self.reset_every}; 0 = never, k = every k steps")

    @property
    def off(self) -> bool:
        """Every step gets h = 0."""
        return self.reset_every == 1

    def before(self, h: Any, i: Array | int) -> Any:
        """The latent that step i gets."""
        if not self.reset_every:
            return h
        return jax.tree.map(lambda a: jnp.where(i % self.reset_every == 0, 0, a), h)

    def after(self, old: Any, new: Any, i: Array | int, remasked: Array | None = None) -> Any:
        """The latent that is carried on; remasked [B, L] = masked now, not before."""
        if self.frozen:
            new = jax.tree.map(lambda a, b: jnp.where(i == 0, b, a), old, new)
        if self.reset_on_remask and remasked is not None:
            new = jax.tree.map(lambda a: jnp.where(remasked[..., None], 0, a), new)
        return new


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
    """A denoiser with its process and read-out settings; never hands out [B, L, V] logits."""

    denoiser: Denoiser
    process: Process
    readout: Readout = Readout()
    tile: int = 0
    groups: int = 1
    label: Array | None = None

    @property
    def passes(self) -> int:
        """Network passes of one call."""
        return 1

    @property
    def paired(self) -> bool:
        """Whether predictions are pairs [N, 2, V], which have no arg max."""
        return False

    def latent(self, batch: int, length: int) -> Any:
        """H before the first step."""
        return self.denoiser.latent(batch, length)

    def trunk(self, state: SampleState, t_B: Array, segment: Array | None = None) -> Trunk:
        """One network call."""
        cond = Cond(clock=self.process.conditioning(t_B), segment=segment, label=self.label)
        return self.denoiser.trunk(state.z, cond, state.h)

    def rows(
        self,
        fn: Callable,
        trunk: Trunk,
        z: Array,
        t_B: Array,
        args: Any,
        where: Array | None = None,
    ) -> Any:
        """fn(prediction [N, V], z [N], t [N], args) over the rows `where` [B, L], as [B, L, ...].

        `args` is a pytree of [B * L, ...] arrays (draws by row among them). With tiles only the
        wanted rows are projected; the others' output has no meaning.
        """

        def read(logits, inner):
            (z, t, more), args = inner
            return fn(self.predict(logits, z, t, more), z, t, args)

        inner = (self._inputs(z, t_B), args)
        return self._walk(read, _by_row(trunk), inner, z.shape, where)

    def rows_of_two(
        self,
        fn: Callable,
        first: tuple[Trunk, Array, Array],
        second: tuple[Trunk, Array, Array],
        args: Any,
        where: Array | None = None,
    ) -> Any:
        """`rows` over two network calls (trunk, z, t_B): fn((pred, z, t), (pred, z, t), args).

        The first call's rows are projected again instead of being kept: keeping them would take the
        [B, L, V] array that tiles avoid.
        """

        def read(logits, inner):
            calls, args = inner
            views = [
                (self.predict(logits[:, i], z, t, more), z, t)
                for i, (z, t, more) in enumerate(calls)
            ]
            return fn(*views, args)

        both = (first, second)
        features = jnp.stack([_by_row(call[0]) for call in both], axis=1)
        shape = first[1].shape
        calls = tuple(self._inputs(z, t_B) for _, z, t_B in both)
        return self._walk(read, features, (calls, args), shape, where)

    def beside(self, z: Array, t_B: Array) -> Any:
        """What a prediction needs besides its logits, by row [B * L, ...]: nothing."""
        del z, t_B
        return ()

    def predict(self, logits_NV: Array, z_N: Array, t_N: Array, beside: Any) -> Array:
        """Read-out of the process, then temperature and truncation."""
        del beside
        return self.readout(self.process.read(logits_NV, z_N, t_N))

    def _inputs(self, z: Array, t_B: Array) -> tuple[Array, Array, Any]:
        """Tokens, times and what else goes with them, by row."""
        return z.reshape(-1), jnp.repeat(t_B, z.shape[1]), self.beside(z, t_B)

    def _walk(self, read, features, args, shape, where) -> Any:
        head: Any = self.denoiser.head
        head = head if features.ndim == 2 else Views(head)
        out = core_rows.rows(
            read,
            head,
            features,
            args,
            where=None if where is None else where.reshape(-1),
            tile=self.tile,
            groups=self.groups,
        )
        return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)


def _by_row(trunk: Trunk) -> Array:
    """Features [B, L, ..., D] as [B * L, ..., D]."""
    return trunk.features.reshape(-1, *trunk.features.shape[2:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One rule per file; a rule overrides what differs from these defaults.

    calls: network calls of one application. clock: "grid" moves from t to s on a time grid; "own"
    is applied until `done`, and t, s are None. latent: "native" (carried as in training),
    "untrained" (carried, but in a way no training pass does) or "refused". finishes: the last step
    of a grid leaves nothing to remove, so the tail is spared wherever that is so. one_way: why the
    rule needs a process whose positions change once, from the mask; "" = it does not. processes: in
    words, where that does not tell.
    """

    calls: ClassVar[int] = 1
    clock: ClassVar[str] = "grid"
    latent: ClassVar[str] = "native"
    finishes: ClassVar[bool] = False
    one_way: ClassVar[str] = ""
    processes: ClassVar[str] = ""

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Refuse what the mathematics does not allow.

        Args:
          process: the forward process.
          latent: whether h is carried.
          timed: whether the network is told the time.

        Raises:
          ValueError: one line that says why and what to do.
        """
        del timed
        if process.schedule is None and not self.processes:
            raise ValueError(
                "an autoregressive model has no reverse diffusion; its sampling.step is next_token"
            )
        name = self.registered[1]  # type: ignore[attr-defined]
        if self.one_way and not process.absorbing:
            raise ValueError(
                f"sampler {name} {self.one_way}; {type(process).__name__.lower()} diffusion has no "
                "mask (use ancestral, euler, tau_leaping, theta_trapezoidal ...)"
            )
        if latent and self.latent == "refused":
            raise ValueError(
                f"sampler {name} cannot carry a latent; switch it off (--latent=off, "
                "latent.reset_every=1) or choose another sampler"
            )

    def init(self, net: Net, state: SampleState) -> Any:
        """The memory before the first step."""
        del net, state
        return ()

    def done(self, net: Net, state: SampleState) -> Array:
        """Clock "own": rows that need no further step, [B]."""
        raise TypeError(f"{type(self).__name__} walks a grid; it is never done")

    def __call__(
        self,
        net: Net,
        state: SampleState,
        t_B: Array | None,
        s_B: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """Move from t to s (both None for clock "own"); adds the calls it makes to `calls`."""
        raise TypeError(f"{type(self).__name__} defines no step")


def masked_and_free(net: Net, state: SampleState) -> Array:
    """Positions that a one-way rule still has to reveal, [B, L]."""
    return net.process.scored(state.z) & state.free
