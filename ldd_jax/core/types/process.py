"""Forward processes, and what samplers and bounds ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ldd_jax.core.types.draw import Draw
from ldd_jax.core.types.network import Denoiser, Head
from ldd_jax.core.types.values import Array, TokenSpace


class Process(Protocol):
    """Forward side of a diffusion over tokens; `prior` and `corrupt` draw, the rest is row-wise.

    Everywhere: logits_NV is what the head gives, pred_NV the prediction that `read` makes of it;
    z_N are present tokens; t_N or clock_N is the clock of each row, s_N that after a step.
    """

    schedule: Any
    tokens: TokenSpace
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

    def places(self, fixed_BL: Array) -> Array:
        """True at positions of the state that stand for these of the text, [B, ...]."""
        ...

    def drift(self, pred_NV: Any, z_N: Any, t_N: Any, s_N: Any) -> Any:
        """The state at s where nothing but what moves without chance has moved.

        Args:
          pred_NV: prediction of `read`.
          z_N: the state at t.
          t_N: clock of each row now.
          s_N: clock after the step; None = the data.

        Returns:
          Like z_N, tokens as they were.
        """
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

    def read(self, logits_NV: Array, z_N: Array, clock_N: Array) -> Array:
        """The prediction: log p(x0 | z), or log ratios.

        Args:
          logits_NV: what the head gives.
          z_N: tokens that the network saw.
          clock_N: clock of each row.

        Returns:
          [N, V], at least float32; `predicts` says of which kind.
        """
        ...

    def one_hot_prediction(self, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """The prediction that knows z0.

        Args:
          z0_N: the clean tokens that it knows.
          z_N: present tokens.
          t_N: clock of each row; its dtype is that of the result.

        Returns:
          [N, V], as `read` gives it.
        """
        ...

    def clean(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(x0 | z), normalised, from the prediction.

        Args:
          pred_NV: prediction of `read`.
          z_N: present tokens.
          t_N: clock of each row.

        Returns:
          [N, V], log-probabilities.
        """
        ...

    def log_recovery(self, pred_NV: Array, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(x0 | z) of given tokens.

        Args:
          pred_NV: prediction of `read`.
          z0_N: the tokens.
          z_N: what the network saw.
          t_N: clock of each row.

        Returns:
          [N], nats.
        """
        ...

    def diffuse(self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """Points after a step of the reverse stochastic differential equation, [N, ...].

        Args:
          draw: one per row.
          pred_NV: prediction of `read`.
          z_N: present points.
          t_N: time of each row now.
          s_N: time after the step.
        """
        ...

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Log p(z_s | z_t) from the prediction; s None means alpha_s = 1.

        Args:
          pred_NV: prediction of `read`.
          z_N: present tokens z_t.
          t_N: clock of each row now.
          s_N: clock after the step, nearer to the data; None = the data.

        Returns:
          [N, V], log-probabilities.
        """
        ...

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Probability that a row is drawn anew from t to s, known without the prediction.

        Args:
          z_N: present tokens z_t.
          t_N: clock of each row now.
          s_N: clock after the step; None = the data.

        Returns:
          [N], in [0, 1].
        """
        ...

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """Draw from the same law, for rows of which `draw.event(move)` has said that they move.

        Args:
          draw: one draw per row; the same whose `event` was asked.
          pred_NV: prediction of `read`.
          z_N: present tokens z_t.
          t_N: clock of each row now.
          s_N: clock after the step; None = the data.

        Returns:
          Tokens [N]; without meaning for rows that do not move.
        """
        ...

    def boundary(self) -> Array:
        """Prior term of the bound, nats per token."""
        ...

    def drawn_boundary(self, z0_N: Array, z_N: Array) -> Array:
        """Log q(z_1 | x) - log prior(z_1) of each row."""
        ...

    def rate(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Reverse intensities by target token, 0 at the present one.

        Args:
          pred_NV: prediction of `read`.
          z_N: present tokens.
          t_N: time of each row.

        Returns:
          [N, V], jumps per unit of time, going back.
        """
        ...

    def total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Their sum where it needs no prediction, else +inf."""
        ...

    def both_ways(self, z_N: Array, t_N: Array) -> Array | None:
        """Intensity out of both ends of a jump, reverse and forward; None = needs a prediction."""
        ...

    def log_analytic(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """Log-law of a Tweedie step from t to s.

        Args:
          pred_NV: prediction of `read`.
          z_N: present tokens z_t.
          t_N: time of each row now.
          s_N: time after the step, s < t.

        Returns:
          [N, V], log-probabilities.
        """
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

    def revealed(self, z: Array) -> Array:
        """Positions whose token may be drawn anew given all others."""
        ...

    def mask_at(self, z: Array, where: Array) -> Array:
        """What to show the network so that its prediction at `where` depends on the others only.

        Args:
          z: the state, [B, L].
          where: [B, L], True where a prediction is wanted.
        """
        ...

    def log_conditional(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(z_t^i | the others) of a settled, hidden row.

        Args:
          pred_NV: prediction of `read`, made with these rows shown as `mask_at` says.
          z_N: tokens as the network saw them.
          t_N: time of each row.

        Returns:
          [N, V], log-probabilities.
        """
        ...

    def elapsed(self, share: Array) -> Array:
        """The time at which a share of the positions is expected to be noise."""
        ...
