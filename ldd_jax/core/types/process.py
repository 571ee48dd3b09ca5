"""Processes: a forward and a reverse side, the bound, and the parts of a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ldd_jax.core.types.forward import Forward
from ldd_jax.core.types.network import Denoiser, Head
from ldd_jax.core.types.reverse import Reverse
from ldd_jax.core.types.values import Array


class Process(Forward, Reverse, Protocol):
    """A diffusion over tokens; what draws is of the forward side, the rest is row-wise.

    Everywhere: logits_NV is what the head gives, pred_NV the prediction that `read` makes of it;
    z_N are present tokens; t_N or clock_N is the clock of each row, s_N that after a step.
    """

    predicts: str
    absorbing: bool  # going back in time, a position changes once, from the mask
    by_position: bool  # positions have times of their own
    counts_events: bool  # the clock is a number of events that are drawn, not a time
    points: bool  # states are points of a space, not tokens
    bridges: bool  # `bridge` draws states on the way between two
    chain: str  # what is to be said of the sampler that the bound is of
    parts: Mapping[str, Any]  # processes that this one is made of, by name; none = it is one itself
    reader: Any  # left to right, by which a network reads tokens off a finished state; or `decode`

    @property
    def words(self) -> Process:
        """The process of the tokens: this one, or that part of it."""
        ...

    def head(self, denoiser: Denoiser) -> Head:
        """What the prediction is read from: the network's head, or a tree of its heads."""
        ...

    def of_tokens(self, tree: Any) -> Any:
        """What of a state, clock or prediction belongs to the tokens."""
        ...

    def with_tokens(self, z: Any, tokens: Array) -> Any:
        """The state `z` with other tokens."""
        ...

    def beside(self, z: Any) -> dict[str, Any]:
        """What a state holds beside its tokens, by name."""
        ...

    def scored(self, z: Array) -> Array:
        """True where the bound of a row can be non-zero."""
        ...

    def bound(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """NELBO integrand of each row, in nats.

        Args:
          logits_NV: what the head gives, before `read`.
          z0_N: clean tokens.
          z_N: corrupted tokens.
          clock_N: clock of each row: a time, or a number of events.

        Returns:
          [N], nats per unit of time, before the factor of `times`.
        """
        ...

    def boundary(self) -> Array:
        """Prior term of the bound, nats per token."""
        ...

    def drawn_boundary(self, z0_N: Array, z_N: Array) -> Array:
        """Log q(z_1 | x) - log prior(z_1) of each row."""
        ...
