"""The forward side of a process: states and clocks, what noise makes of them, and its law."""

from __future__ import annotations

from typing import Any, Protocol

from ldd_jax.core.types.values import Array, TokenSpace


class Forward(Protocol):
    """States and clocks of a diffusion, and how they are drawn; the noise's own law is row-wise.

    z_N are present tokens; t_N is the time of each row.
    """

    schedule: Any
    tokens: TokenSpace

    def places(self, fixed_BL: Array) -> Array:
        """True at positions of the state that stand for these of the text, [B, ...]."""
        ...

    def check(self, *, timed: bool) -> None:
        """Refuse a schedule that cannot be.

        Args:
          timed: whether the network is told the time.

        Raises:
          ValueError: saying what to do.
        """
        ...

    def digits(self, vocabulary: int) -> int:
        """Symbols that write one of `vocabulary` tokens, each with a row of the network's own."""
        ...

    def conditioning(self, clock: Any) -> Any:
        """What the network is told of the clock (sigma = -log alpha for diffusion in time)."""
        ...

    def clock(self, t_B: Array, length: int) -> Any:
        """The clock at times of the sampler's grid.

        Args:
          t_B: times in [0, 1].
          length: L.

        Returns:
          [B], [B, L], or a tree of them.
        """
        ...

    def prior(self, keys_B: Array, length: int) -> tuple[Any, Any]:
        """Draw a state from the stationary law, at t = 1.

        Args:
          keys_B: a PRNG key per example.
          length: L.

        Returns:
          z, leaves [B, L, ...], and its clock.
        """
        ...

    def encode(self, tokens: Array) -> Any:
        """The finished state that stands for tokens [B, L]."""
        ...

    def decode(self, z: Any) -> Array:
        """The tokens [B, L] that a finished state stands for."""
        ...

    def shown(self, z: Any) -> Array:
        """The tokens [B, L] that a state on the way looks like, the mask among them."""
        ...

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """Draw z_t given z_0 and return it with the clock.

        Args:
          keys_B: a PRNG key per example.
          z0: clean state [B, L], as `encode` makes it.
          t_B: times in [0, 1], 1 = noise.
          keep: [B, L], True where nothing is replaced.

        Returns:
          z_t like z0, and its clock: [B], [B, L] or a tree of them.
        """
        ...

    def corrupt_to_prior(
        self, keys_B: Array, z0: Array, t_B: Array, keep: Array
    ) -> tuple[Array, Array]:
        """The same by the forward process whose end the sampler starts from.

        `keys_B`, `z0`, `t_B` and `keep` are those of `corrupt`.

        Returns:
          As of `corrupt`.
        """
        ...

    def bridge(
        self, keys_B: Array, z0: Array, z: Array, clock: Array, later: Array, keep: Array
    ) -> Array:
        """Draw z_s given z_t and z_0, s < t: a forward trajectory, seen backwards.

        Args:
          keys_B: a PRNG key per example.
          z0: clean state, [B, L].
          z: state z_t, [B, L].
          clock: of z_t, [B] or [B, L].
          later: of z_s, nearer to the data or equal.
          keep: [B, L], True where nothing is replaced.

        Returns:
          z_s like z.

        Raises:
          TypeError: where `bridges` is False.
        """
        ...

    def noise_law(self, dtype: Any) -> Array:
        """What a token becomes when it is replaced, [V]."""
        ...

    def noise_rate(self, z_N: Array, t_N: Array, size: int) -> Array:
        """Forward intensities by target token.

        Args:
          z_N: present tokens.
          t_N: time of each row.
          size: number of states, V.

        Returns:
          [N, size], jumps per unit of time, 0 at the present token.
        """
        ...

    def noise_total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Their sum."""
        ...

    def elapsed(self, share: Array) -> Array:
        """The time at which a share of the positions is expected to be noise."""
        ...
