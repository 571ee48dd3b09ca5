"""No corruption: tokens come one after the other, and a network sees all those before."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn

import jax.numpy as jnp

from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import register, runtime
from ldd_jax.core.types import Array, Draw, TokenSpace
from ldd_jax.processes.base import OfTokens, at_least_float32, log_softmax


def _no_reverse(*_: Any) -> NoReturn:
    raise UserError(
        "an autoregressive model has no reverse diffusion; its sampling.step is next_token"
    )


@register("process", "left_to_right")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftToRight(OfTokens):
    """p(x) = prod_i p(x_i | x_1 .. x_{i-1}); the state past the symbols stands for the start.

    It has no time: the clock is None everywhere, and what belongs to a reverse diffusion raises.
    `begin`: an id to read before the first token in place of that state (-1 = the state), for
    networks made elsewhere; `states` and `mask` as for a diffusion (`base.token_space`).
    """

    states: int = 0
    mask: int = -1
    begin: int = -1
    tokens: TokenSpace = runtime()
    schedule = None
    predicts = "clean"
    by_position = False
    counts_events = False
    points = False
    chain = ""

    def __post_init__(self):
        if self.tokens is not None and self.tokens.mask is None:
            raise ValueError("a left-to-right model needs a token space with a start (mask) state")
        if self.tokens is not None and self.begin >= self.tokens.size:
            raise ValueError(f"begin is {self.begin}; there are {self.tokens.size} states")

    @staticmethod
    def digits(vocabulary: int) -> int:
        """Symbols of a token: one."""
        del vocabulary
        return 1

    @property
    def start(self) -> int:
        """What the network reads before the first token."""
        assert self.tokens.mask is not None
        return self.tokens.mask if self.begin < 0 else self.begin

    @staticmethod
    def token_space_size(vocabulary: int) -> tuple[int, int | None]:
        """States and start id for a vocabulary: the start is one more state, the last."""
        return vocabulary + 1, vocabulary

    def check(self, *, timed: bool) -> None:
        """There is no schedule."""
        del timed

    def conditioning(self, clock: Any) -> None:
        """The network is told no time."""
        del clock

    def prior(self, keys_B: Array, length: int) -> tuple[Array, None]:
        """Nothing generated yet: the start state everywhere, [B, length]; there is no clock."""
        return jnp.full((keys_B.shape[0], length), self.start, jnp.int32), None

    def encode(self, tokens: Array) -> Array:
        """Tokens themselves."""
        return tokens

    def decode(self, z: Array) -> Array:
        """Tokens themselves."""
        return z

    def shown(self, z: Array) -> Array:
        """Tokens themselves."""
        return z

    def clock(self, t_B: Array, length: int) -> None:
        """There is none."""
        del t_B, length

    def corrupt(self, keys_B: Array, z0: Array, t_B: Any, keep: Array) -> tuple[Array, None]:
        """Nothing is corrupted."""
        del keys_B, t_B, keep
        return z0, None

    def scored(self, z: Array) -> Array:
        """Every position."""
        return jnp.ones(z.shape, bool)

    def read(self, logits_NV: Array, z_N: Array | None = None, clock_N: Any = None) -> Array:
        """Log p(next token | those before); the start (mask) state has probability 0."""
        del z_N, clock_N
        start = jnp.arange(logits_NV.shape[-1]) == self.tokens.mask
        return log_softmax(jnp.where(start, -jnp.inf, at_least_float32(logits_NV)))

    def one_hot_prediction(self, z0_N: Array, z_N: Any, t_N: Any) -> Array:
        """Refused: there is no reverse diffusion."""
        _no_reverse()

    def clean(self, pred_NV: Array, z_N: Any = None, t_N: Any = None) -> Array:
        """The prediction itself."""
        del z_N, t_N
        return pred_NV

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Any = None, clock_N: Any = None) -> Array:
        """-log p(x_i | x_<i), nats: no bound but the likelihood itself."""
        return -jnp.take_along_axis(self.read(logits_NV), z0_N[:, None], -1)[:, 0]

    def boundary(self, dtype=jnp.float32) -> Array:
        """0: the likelihood has no further terms."""
        return jnp.zeros((), dtype)

    def noise_law(self, dtype: Any) -> Array:
        """Refused: there is no noise."""
        _no_reverse()

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Refused: there is no reverse diffusion."""
        _no_reverse()

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Refused: there is no reverse diffusion."""
        _no_reverse()

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """Refused: there is no reverse diffusion."""
        _no_reverse()

    def rate(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Refused: there is no reverse diffusion."""
        _no_reverse()
