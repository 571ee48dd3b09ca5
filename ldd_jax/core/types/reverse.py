"""The reverse side of a process: its prediction, and the laws of steps that are made from it."""

from __future__ import annotations

from typing import Any, Protocol

from ldd_jax.core.types.draw import Draw
from ldd_jax.core.types.values import Array


class Reverse(Protocol):
    """What samplers ask of a process, row by row.

    Everywhere: logits_NV is what the head gives, pred_NV the prediction that `read` makes of it;
    z_N are present tokens; t_N or clock_N is the clock of each row, s_N that after a step.
    """

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
