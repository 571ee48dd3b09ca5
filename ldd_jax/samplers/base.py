"""What a step sees and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ldd_jax.core import rows as core_rows
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond, Denoiser, Draw, Process, Trunk
from ldd_jax.samplers.logits import Readout


class Clamp(NamedTuple):
    """Conditions: tokens [B, L] fixed where `fixed` [B, L]; `segment` [B, L] 0 marks padding."""

    tokens: Array
    fixed: Array
    segment: Array | None = None


class SampleState(NamedTuple):
    """z [B, L]; h opaque latent; free [B, L] neither clamped nor padding; calls [B] per row."""

    z: Array
    h: Any
    free: Array
    calls: Array


@register("latent", "latent")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Latent:
    """What happens to h between steps.

    `reset_every` k > 0 puts h = 0 before steps 0, k, 2k, ... (1 = the latent is off);
    `frozen` keeps the latent of the first step for all later ones.
    """

    reset_every: int = 0
    frozen: bool = False

    def __post_init__(self):
        if self.reset_every < 0:
            raise ValueError(f"reset_every is {self.reset_every}; 0 = never, k = every k steps")

    def before(self, h: Any, i: Array | int) -> Any:
        """The latent that step i gets."""
        if not self.reset_every:
            return h
        return jax.tree.map(lambda a: jnp.where(i % self.reset_every == 0, 0, a), h)

    def after(self, old: Any, new: Any, i: Array | int) -> Any:
        """The latent that is carried on."""
        if not self.frozen:
            return new
        return jax.tree.map(lambda a, b: jnp.where(i == 0, b, a), old, new)


@dataclasses.dataclass(frozen=True)
class Net:
    """A denoiser with its process and read-out settings; never hands out [B, L, V] logits."""

    denoiser: Denoiser
    process: Process
    readout: Readout = Readout()
    tile: int = 0
    groups: int = 1

    def trunk(self, state: SampleState, t_B: Array, segment: Array | None = None) -> Trunk:
        """One network call."""
        cond = Cond(clock=self.process.conditioning(t_B), segment=segment)
        return self.denoiser.trunk(state.z, cond, state.h)

    def rows(
        self,
        fn: Callable,
        trunk: Trunk,
        z: Array,
        t_B: Array,
        args: Any,
        where: Array | None = None,
    ) -> Array:
        """fn(prediction [N, V], z [N], t [N], args) over the rows `where` [B, L], as [B, L, ...].

        `args` is a pytree of [B * L, ...] arrays (draws by row among them). With tiles only the
        wanted rows are projected; the others' output has no meaning.
        """
        length = z.shape[1]
        t_N = jnp.repeat(t_B, length)

        def read(logits, inner):
            z, t, args = inner
            return fn(self.readout(self.process.read(logits, z, t)), z, t, args)

        features = trunk.features.reshape(-1, trunk.features.shape[-1])
        out = core_rows.rows(
            read,
            self.denoiser.head,
            features,
            (z.reshape(-1), t_N, args),
            where=None if where is None else where.reshape(-1),
            tile=self.tile,
            groups=self.groups,
        )
        return jax.tree.map(lambda a: a.reshape(*z.shape, *a.shape[1:]), out)


class Step(Protocol):
    """One rule per file; clock "own" = one call makes the whole sample, without grid and tail."""

    clock: str
    calls: int

    def __call__(
        self,
        net: Net,
        state: SampleState,
        t_B: Any,
        s_B: Array | None,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """Move from t to s; s None is the noise removal (alpha_s = 1)."""
        ...
