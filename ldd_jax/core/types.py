"""Data that flows between the stages, and the protocols of those who handle it.

Dim letters: B batch, L length, V all states (mask column included), D width, K latent width,
N rows (= B * L flattened).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSpace:
    """The alphabet of a process: `size` states, one of which may be the mask.

    The only definition of the mask id in the code base; it may stand anywhere in [0, size).
    `exact` False: the size is only the most that it can be, before the data are read.
    """

    size: int
    mask: int | None = None
    exact: bool = True

    def __post_init__(self):
        if self.size < 1 or (self.mask is not None and not 0 <= self.mask < self.size):
            raise ValueError(
                f"TokenSpace(size={self.size}, mask={self.mask}): mask outside [0, size)"
            )


ATTENDS = ("full", "causal", "block", "mask")


@struct.dataclass
class Attend:
    """Which keys a query sees, among those of its own document (`Cond.segment`).

    kind: "full" all; "causal" itself and those before; "block" those whose `unit` is not after its
    own (a block or patch number, [B, L]; block diffusion, arXiv 2503.09573); "mask" where `mask` is
    True, [L, L] or [B, L, L] (query, key). Every query must see a key.
    """

    kind: str = struct.field(pytree_node=False, default="full")
    unit: Array | None = None
    mask: Array | None = None

    def check(self) -> None:
        """Refuse an unknown kind, or one without its array.

        Raises:
          ValueError: saying which. Not when it is made: trees of it hold what is no array too.
        """
        if self.kind not in ATTENDS:
            raise ValueError(f"attend kind {self.kind!r} is not one of {', '.join(ATTENDS)}")
        if (self.kind == "block") != (self.unit is not None):
            raise ValueError("attend: unit belongs to kind 'block', and to no other")
        if (self.kind == "mask") != (self.mask is not None):
            raise ValueError("attend: mask belongs to kind 'mask', and to no other")


class Cond(NamedTuple):
    """All that a network is told besides tokens; a leaf it has no input for is refused.

    clock: what the process tells the network of time, [B] or [B, L]; label: class [B];
    segment: packed documents [B, L], 0 = padding; position: [B, L], None = 0..L-1;
    attend: which positions see which, None = as the network was made.
    """

    clock: Array | None = None
    label: Array | None = None
    segment: Array | None = None
    position: Array | None = None
    attend: Attend | None = None

    def of_none(self, classes: int, batch: int) -> Cond:
        """With the label that means none where a network of `classes` is told no class.

        Without any label such a network is one that nobody trained.
        """
        if not classes or self.label is not None:
            return self
        return self._replace(label=jnp.full(batch, classes, jnp.int32))


class Trunk(NamedTuple):
    """Output of a denoiser's trunk.

    features_BLD after final norm and modulation; latent_BLK float32, before it; cache for decoding.
    """

    features: Array
    latent: Any
    cache: Any = None


class Batch(NamedTuple):
    """One (micro)batch of training or evaluation examples.

    z0 [B, L] clean tokens; keep [B, L] positions never corrupted (prompt, padding); weight [B, L]
    share of a position in the loss; cond; index [B] position in the global step batch, from which
    times and keys come; total: size of that global batch; norm: sum of weights over it; step: the
    update's number, 0 in evaluation; drawn: what an objective drew for the update (`Objective.
    drawn`), leaves [B, ...].
    """

    z0: Array
    keep: Array
    weight: Array
    cond: Cond
    index: Array  # type: ignore[assignment]
    total: Any
    norm: Any
    step: Any = 0
    drawn: Any = ()


def as_batch(arrays: dict[str, Array]) -> Batch:
    """A global batch from the pipeline's arrays; its own size and weights normalise it."""
    return Batch(
        z0=arrays["z0"],
        keep=arrays["keep"],
        weight=arrays["weight"],
        cond=Cond(
            label=arrays.get("label"),
            segment=arrays.get("segment"),
            position=arrays.get("position"),
        ),
        index=arrays["index"],
        total=arrays["z0"].shape[0],
        norm=jnp.sum(arrays["weight"]),
    )


class Loss(NamedTuple):
    """A scalar that simply adds up over microbatches and shards, and metrics that do too."""

    total: Array
    metrics: dict[str, Array]


class Objective(Protocol):
    """What an update minimises."""

    def aux(self, batch: int, length: int) -> Any:
        """Shapes and dtypes of what is kept from update to update, leaves [batch, ...]; or ()."""
        ...

    def drawn(self, denoiser: Denoiser, batch: Batch, aux: Any, key: Array) -> tuple[Any, Batch]:
        """What to keep now, and the batch to be scored; no gradient is taken through it.

        Sees the whole global batch: microbatches get their share of the one that it returns.

        Args:
          denoiser: network with the parameters of this update.
          batch: global batch, as the pipeline gives it.
          aux: what the update before kept, in the structure of `aux`.
          key: PRNG key of this update, for what is drawn here.

        Returns:
          What to keep, and the batch, with the same leading axis B.
        """
        ...

    def __call__(self, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """The loss of a (micro)batch.

        Args:
          denoiser: network with the parameters that the gradient is taken in.
          batch: of `drawn`, or a microbatch of it; `norm` and `total` are those of the global
            batch.
          key: PRNG key of this update; examples differ by `batch.index`.

        Returns:
          A total that adds up over microbatches and shards, and metrics that do too.
        """
        ...


class Head(Protocol):
    """A pytree; row-wise projection to the vocabulary."""

    def __call__(self, features_ND: Array) -> Array:
        """Return logits [N, V], at least float32."""
        ...


class Denoiser(Protocol):
    """A pytree whose leaves are the parameters."""

    head: Head

    @property
    def timed(self) -> bool:
        """Whether cond.clock changes what comes out."""
        ...

    @property
    def hollow(self) -> bool:
        """Whether what comes out at a position is a function of the other positions only."""
        ...

    def trunk(
        self, z_BL: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Run the network without its vocabulary projection; h None = zeros.

        Args:
          z_BL: the state, tokens [B, L], or what else the network's input reads.
          cond: all that it is told beside them.
          h: latent of the pass before, in the structure of `latent`; None = zeros.
          key: a PRNG key per example, [B], for dropout; None = no dropout.
          cache: what positions before left behind, of `cache`; None = there are none.

        Returns:
          Features before the vocabulary projection, the new latent, the cache with these positions.

        Raises:
          ValueError: saying what this network has no input for, or what is missing.
        """
        ...

    def latent(self, batch: int, length: int) -> Any:
        """Zeros of the carried structure; None if the network takes no latent."""
        ...

    def cache(self, batch: int, length: int) -> Any:
        """An empty cache for `trunk`; refused by a network that is not causal."""
        ...


class Model(Protocol):
    """A registered config that makes parameters and binds them.

    latent: takes one; causal: a position sees itself and those before; time_conditioning: is told
    the time; num_classes: of labels, 0 = takes none; dropout: probability.
    """

    @property
    def latent(self) -> bool: ...  # noqa: D102
    @property
    def causal(self) -> bool: ...  # noqa: D102
    @property
    def time_conditioning(self) -> bool: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102
    @property
    def dropout(self) -> float: ...  # noqa: D102

    def init(self, key: Array) -> Any:
        """Parameters as a nested dict."""
        ...

    def axes(self) -> Any:
        """Logical axis names, one tuple for every parameter, in the same structure."""
        ...

    def bind(self, params: Any) -> Denoiser:
        """The denoiser with these parameters."""
        ...

    def operations(self, length: int) -> dict[str, float]:
        """Of one position of a row of `length`, forward: those of its `trunk` and of its `head`."""
        ...


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

    def check(self, *, timed: bool) -> None:
        """Refuse a schedule that cannot be.

        Args:
          timed: whether the network is told the time.

        Raises:
          ValueError: saying what to do.
        """
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

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Uniforms in [0, 1), leading axis = the draw's own."""
        ...


Context = Callable[[Denoiser, Array, Cond, Array | None], Any]
