"""Where all randomness of sampling comes from."""

from __future__ import annotations

from typing import Any, Protocol

from ldd_jax.core.types.values import Array


class Draw(Protocol):
    """All randomness of sampling; a pytree, so that its rows can be tiled."""

    def at(self, *, step: Any = None, site: int | None = None) -> Draw:
        """The draw of one step or one site within a step.

        Args:
          step: number of the step; None = as it is.
          site: number of the place within it; None = as it is.
        """
        ...

    def rows(self, length: int) -> Draw:
        """One draw per row of a [B, length] batch, flattened."""
        ...

    def categorical(self, logp_NV: Array) -> Array:
        """One token per row.

        Args:
          logp_NV: log-probabilities, normalised or not.

        Returns:
          Tokens [N], or `NO_LAW` (-1) for a row that no token can be drawn from.
        """
        ...

    def event(self, p_N: Array) -> Array:
        """True with probability p; a draw that cannot tell yet says True where p > 0.

        Args:
          p_N: probability of each row, in [0, 1].

        Returns:
          [N] bool; `outcome` is asked next, of rows that are True.
        """
        ...

    def outcome(self, logp_NV: Array, p_N: Array, stay_N: Array) -> Array:
        """Given that the event came True: one token per row from logp; if only now decided,
        from the mixture p * exp(logp) + (1 - p) * onehot(stay).

        Args:
          logp_NV: log-probabilities of the tokens that a row which moves may take.
          p_N: probability of the event, as `event` was asked.
          stay_N: the present tokens, kept where the event turns out False.

        Returns:
          Tokens [N], or `NO_LAW` (-1) for a row of logp that no token can be drawn from.
        """
        ...

    def ranking(self, logit_BL: Array) -> Array:
        """Random ranks 0..L-1: places taken without replacement with probability ~ exp(logit).

        Args:
          logit_BL: log-weight of each place; -inf comes last.

        Returns:
          int32 [B, L].
        """
        ...

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers, leading axis = the draw's own."""
        ...

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Uniforms in [0, 1), leading axis = the draw's own."""
        ...
