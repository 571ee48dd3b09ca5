"""A DiT that sees a signal beside its tokens, and says how the signal moves (arXiv 2402.04997)."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.positions import SIGNAL, TEXT
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Cond
from ldd_jax.denoisers import layers
from ldd_jax.denoisers.dit import DiT
from ldd_jax.denoisers.dit_bound import BoundDiT
from ldd_jax.denoisers.transformer import LinearHead

TICKS = 1000  # of the time embedding from t = 0 to 1: it tells whole numbers apart


class Both(nn.Module):
    """The tokens' own layer, plus X W + b of the signal and its time; float32."""

    tokens: nn.Module
    channels: int
    width: int

    @nn.compact
    def __call__(self, z: dict[str, Array]) -> Array:
        """Tokens [B, L] and points [B, L, C + 1] to [B, L, D]."""
        signal = layers.dense(self.width, self.channels + 1, "signal", jnp.float32)
        return self.tokens(z[TEXT]) + signal(z[SIGNAL])


@struct.dataclass
class BoundSignalDiT(BoundDiT):
    """A `SignalDiT` with its parameters."""

    # The signal enters beside tokens and latent, so that two terms are not all that enters.
    parts = None  # type: ignore[assignment]

    @property
    def heads(self) -> dict[str, LinearHead]:
        """The signal's velocity, [N, D] to [N, C]."""
        return {SIGNAL: LinearHead(**self.params[SIGNAL])}


@register("model", "signal_dit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalDiT(DiT):
    """A DiT with a signal beside its tokens, as an input and by a second, linear head.

    Two ways in, the same network: the state is a tree {"text": tokens [B, L], "signal": points
    [B, L, C]} and the clock a tree of their times (process joint), or the state is tokens and
    `cond.signal` a signal that is given, at its time 0. The signal's time is its last channel, and
    what the adaLN is told; the tokens' time it is not told: their masks are seen.

    Attributes:
      channels: of the signal, C.
    """

    channels: int = 1

    bound = BoundSignalDiT

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "channels")
        if self.time_conditioning:
            raise ValueError(
                "time_conditioning does not apply: a signal's time is told always, that of masked "
                "tokens never; set it False"
            )
        if self.causal:
            raise ValueError("causal does not apply to a network with a signal; set it False")

    @property
    def by_token(self) -> bool:
        """A signal enters too."""
        return False

    def shown(self, z: Any, cond: Cond) -> tuple[Any, Cond]:
        """Tokens, and points with their time as a last channel; the clock is the signal's.

        Raises:
          ValueError: without a signal, or with one of another number of channels.
        """
        if isinstance(z, dict):
            if cond.signal is not None or cond.clock is None:
                raise ValueError("the state holds a signal: cond.clock tells its time, no other is")
            clock = cond.clock[SIGNAL]  # type: ignore[index]
        else:
            if cond.signal is None:
                raise ValueError("this network is told a signal beside its tokens; cond.signal")
            z = {TEXT: z, SIGNAL: cond.signal}
            clock = jnp.zeros(z[TEXT].shape[0], cond.signal.dtype)
        x = z[SIGNAL]
        if x.shape[-1] != self.channels:
            raise ValueError(f"a signal of {x.shape[-1]} channels; the network has {self.channels}")
        time = jnp.broadcast_to(clock[:, None, None].astype(x.dtype), (*x.shape[:2], 1))
        z = {TEXT: z[TEXT], SIGNAL: jnp.concatenate([x, time], axis=-1)}
        return z, cond._replace(clock=clock, signal=None)

    def told(self, cond: Cond, batch: int) -> Array:
        """The signal's time, in ticks."""
        return jnp.zeros(batch) if cond.clock is None else TICKS * cond.clock

    def embedding(self) -> nn.Module:
        """Both layers."""
        return Both(super().embedding(), self.channels, self.width)

    def example(self) -> dict[str, Array]:
        """A state of one row."""
        return {TEXT: super().example(), SIGNAL: jnp.zeros((1, 2, self.channels + 1))}

    def init(self, key: Array) -> Any:
        """Those of a DiT, and "signal", the second head, which starts at zero."""
        head = {"kernel": jnp.zeros((self.width, self.channels)), "bias": jnp.zeros(self.channels)}
        return super().init(key) | {SIGNAL: head}

    def operations(self, length: int) -> dict[str, float]:
        """Those of a DiT, the way in and the second head among its trunk."""
        found = super().operations(length)
        found["trunk"] += 2 * self.width * (2 * self.channels + 1)
        return found

    def axes(self) -> Any:
        """Those of a DiT, and of the signal's two maps."""
        found = super().axes()
        enter = {"kernel": ("features", "width"), "bias": ("width",)}
        found["trunk"]["embed"] = {"tokens": found["trunk"]["embed"], SIGNAL: enter}
        return found | {SIGNAL: {"kernel": ("width", None), "bias": (None,)}}
