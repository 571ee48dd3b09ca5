"""What processes in continuous time with a signal level alpha(t) share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import require
from ldd_jax.core.draws import fold, uniforms
from ldd_jax.core.registry import component, runtime
from ldd_jax.core.types import Array, Denoiser, Draw, Head, TokenSpace
from ldd_jax.schedules import LogLinear


def onehot_log(token_N: Array, size: int, dtype: Any) -> Array:
    """Log of a one-hot row: 0 at the token, -inf elsewhere, [N, size].

    Args:
      token_N: the token of each row.
      size: number of states, V.
      dtype: a floating type.
    """
    hit = jnp.arange(size) == token_N[:, None]
    return jnp.where(hit, jnp.zeros((), dtype), -jnp.inf)


def at_least_float32(x: Array) -> Array:
    """Keep float32 and float64, raise smaller floats to float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def token_space(process: Any, vocabulary: int) -> TokenSpace:
    """The states of a process over a tokenizer's ids, those of its config where it says so.

    Args:
      process: `token_space_size` tells the usual number and mask (one more state, the last);
        its fields `states` and `mask` are for networks made elsewhere, whose mask is one of the
        tokenizer's own ids, or which have states that no token uses.
      vocabulary: ids of the tokenizer.

    Raises:
      UserError: where states or mask do not fit.
    """
    size, mask = process.token_space_size(vocabulary)
    digits = process.digits(vocabulary)
    size = process.states or size
    if process.mask >= 0:
        require(mask is not None, f"process.mask is {process.mask}, but this process has no mask")
        mask = process.mask
    require(
        size**digits >= vocabulary and (mask is None or mask < size),
        f"a process of {size} states (mask {mask}) does not hold the tokenizer's {vocabulary} ids",
    )
    return TokenSpace(size=size, mask=mask, digits=digits, vocabulary=vocabulary)


class OfTokens:
    """A process of tokens alone: they are all of its state."""

    parts: ClassVar[Mapping[str, Any]] = {}
    absorbing = bridges = False
    reader: Any = None

    def places(self, fixed_BL: Array) -> Array:
        """Positions of the state are those of the text."""
        return fixed_BL

    @property
    def words(self) -> Any:
        """It is the process of its tokens."""
        return self

    def head(self, denoiser: Denoiser) -> Head:
        """The vocabulary projection."""
        return denoiser.head

    def of_tokens(self, tree: Any) -> Any:
        """All of it."""
        return tree

    def with_tokens(self, z: Array, tokens: Array) -> Array:
        """They are the state."""
        del z
        return tokens

    def beside(self, z: Array) -> dict[str, Any]:
        """Nothing."""
        del z
        return {}

    def drift(self, pred_NV: Any, z_N: Any, t_N: Any, s_N: Any) -> Any:
        """Tokens move by chance only."""
        del pred_NV, t_N, s_N
        return z_N

    def bridge(
        self, keys_B: Array, z0: Array, z: Array, clock: Array, later: Array, keep: Array
    ) -> Array:
        """z_s given z_t and z_0."""
        raise TypeError(f"{type(self).__name__} draws no states between two")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(OfTokens):
    """Clock = t in [0, 1]; the network is told sigma(t) = -log alpha(t).

    `states` and `mask`: see `token_space`; 0 and -1 = as usual.
    """

    schedule: Any = component("schedule", LogLinear)
    states: int = 0
    mask: int = -1
    tokens: TokenSpace = runtime()
    predicts = "clean"
    by_position = False
    counts_events = False
    points = False
    chain = ""

    def check(self, *, timed: bool) -> None:
        """Refuse a schedule without a signal at t = 1 where one is needed.

        A network that is told sigma(t), and intensities without a mask, meet -log alpha(1) and
        1 / alpha(1). A network of masks that is not told the time does not.

        Raises:
          ValueError: saying what to do.
        """
        if (timed or not self.absorbing) and self.schedule.exhausted():
            why = "a network that is told the time" if timed else "diffusion without a mask"
            raise ValueError(
                f"schedule {type(self.schedule).__name__.lower()} leaves nothing of the signal at "
                f"t = 1 (alpha = {float(self.schedule.rest()):.1e}), where {why} needs log alpha; "
                "raise eps (1e-3 is usual), or lower sigma_max"
            )

    @staticmethod
    def digits(vocabulary: int) -> int:
        """Symbols that write one of so many tokens: they are symbols themselves."""
        del vocabulary
        return 1

    def conditioning(self, clock: Array) -> Array:
        """sigma(t)."""
        return self.schedule.sigma(clock)

    def clock(self, t_B: Array, length: int) -> Array:
        """The clock at time t of the sampler's grid: t itself, the same at all positions."""
        del length
        return t_B

    def _begin(self, keys_B: Array, length: int) -> Array:
        """The clock of the prior."""
        return self.clock(jnp.ones(keys_B.shape[0], jnp.result_type(float)), length)

    def encode(self, tokens: Array) -> Array:
        """The finished state of tokens [B, L]: they are it."""
        return tokens

    def decode(self, z: Array) -> Array:
        """The tokens [B, L] of a finished state: it is they."""
        return z

    def shown(self, z: Array) -> Array:
        """The tokens [B, L] that a state on the way looks like."""
        return self.decode(z)

    def _replace(
        self, keys_B: Array, z0: Array, level: Array, keep: Array, noise_BL: Array
    ) -> Array:
        """Replace tokens outside `keep` by `noise_BL`, each with probability `level`."""
        u = uniforms(fold(keys_B, 0), z0.shape[1:])
        return jnp.where((u < positions.column(level)) & ~keep, noise_BL, z0)

    def corrupt(self, keys_B: Array, z0: Array, t_B: Array, keep: Array) -> tuple[Array, Array]:
        """z_t given z_0, and the clock."""
        raise TypeError(f"{type(self).__name__} defines no corruption")

    def corrupt_to_prior(
        self, keys_B: Array, z0: Array, t_B: Array, keep: Array
    ) -> tuple[Array, Array]:
        """The same by the forward process whose end the sampler starts from, as a bound needs it.

        Here that of `corrupt`: what is left at t = 1 is the prior term of `boundary`.
        """
        return self.corrupt(keys_B, z0, t_B, keep)

    def log_posterior(self, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Log p(z_s | z_t)."""
        raise TypeError(f"{type(self).__name__} defines no posterior")

    def one_hot_prediction(self, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """The prediction that knows x = z0."""
        del z_N
        return onehot_log(z0_N, self.tokens.size, t_N.dtype)

    def clean(self, pred_NV: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(x0 | z), normalised, from the prediction: a step to alpha = 1."""
        return self.log_posterior(pred_NV, z_N, t_N, None)

    def log_recovery(self, pred_NV: Array, z0_N: Array, z_N: Array, t_N: Array) -> Array:
        """Log p(x0 | z) of given tokens, from the prediction."""
        law = self.clean(pred_NV, z_N, t_N)
        return jnp.take_along_axis(law, z0_N[:, None], -1)[:, 0]

    def diffuse(self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """Points after a step of the reverse stochastic differential equation."""
        raise TypeError(f"{type(self).__name__} has no points to move")

    def drawn_boundary(self, z0_N: Array, z_N: Array) -> Array:
        """Log q(z_1 | x) - log prior(z_1) of a row, whose mean over z_1 is `boundary`."""
        raise TypeError(f"{type(self).__name__} defines no prior term")

    def noise_law(self, dtype: Any) -> Array:
        """What a token becomes when it is replaced, [V]."""
        raise TypeError(f"{type(self).__name__} defines no law of noise")

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """1: every row is drawn anew."""
        del s_N
        return jnp.ones(z_N.shape, t_N.dtype)

    def total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Total reverse intensity of a row where no prediction is needed for it, else +inf."""
        return jnp.full(z_N.shape, jnp.inf, t_N.dtype)

    def both_ways(self, z_N: Array, t_N: Array) -> Array | None:
        """Intensity out of both ends of a jump, reverse and forward; None = needs a prediction."""
        del z_N, t_N
        return None

    def mask_at(self, z: Array, where: Array) -> Array:
        """What the network must be shown to predict the tokens at `where` from all others."""
        del where
        return z

    def elapsed(self, share: Array) -> Array:
        """The time at which a share of the positions is expected to be noise."""
        return self.schedule.inverse(share)

    def sample_posterior(
        self, draw: Draw, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """One categorical draw from `log_posterior`."""
        law = self.log_posterior(pred_NV, z_N, t_N, s_N)
        return draw.outcome(law, self.move_probability(z_N, t_N, s_N), z_N)

    def _levels(self, t_N: Array, s_N: Array | None) -> tuple[Array, Array]:
        """Noise levels 1 - alpha at t and s, as columns; s None means no noise."""
        noise_t = self.schedule.noise(t_N)[:, None]
        noise_s = jnp.zeros_like(noise_t) if s_N is None else self.schedule.noise(s_N)[:, None]
        return noise_t, noise_s

    def _signals(self, t_N: Array, s_N: Array | None) -> tuple[Array, Array]:
        """Signal levels alpha at t and s, as columns."""
        alpha_t = self.schedule.alpha(t_N)[:, None]
        alpha_s = jnp.ones_like(alpha_t) if s_N is None else self.schedule.alpha(s_N)[:, None]
        return alpha_t, alpha_s


def check_rows(pred_NV: Array, z_N: Array, size: int) -> None:
    """Refuse rows whose shapes do not fit.

    Args:
      pred_NV: predictions of a row-wise call.
      z_N: tokens of the same rows.
      size: number of states, V.

    Raises:
      ValueError: with the shapes that were expected.
    """
    if pred_NV.shape != (z_N.shape[0], size):
        raise ValueError(
            f"predictions have shape {pred_NV.shape}; {z_N.shape[0]} rows of {size} states expected"
        )


def log_softmax(logits_NV: Array) -> Array:
    """Normalised log-probabilities in at least float32."""
    return jax.nn.log_softmax(at_least_float32(logits_NV), axis=-1)
