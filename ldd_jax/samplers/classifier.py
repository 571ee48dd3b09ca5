"""Classifier guidance (arXiv 2412.10193): a classifier of noisy tokens steers any step rule."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array, Process
from ldd_jax.samplers.guidance import TwoPredictionProcess
from ldd_jax.samplers.net import Net

MODES = ("exact", "first_order")


class Classifier(Protocol):
    """A pytree: log p(y | z_t, t) from embedded tokens."""

    @property
    def table(self) -> Array:
        """Embeddings of all states, [V, E]."""
        ...

    def __call__(self, e_BLE: Array, clock_B: Array, label_B: Array) -> Array:
        """Log p(label | tokens), nats [B].

        Args:
          e_BLE: one-hot tokens, or points between them, over the states.
          clock_B: what the process tells a network of time.
          label_B: classes.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Shifted(TwoPredictionProcess):
    """The pair is a log-prediction and what is added to the log of every law made from it."""

    def _of_both(self, law: Any, pred: Array) -> Array:
        return law(pred[:, 0]) + pred[:, 1]

    def move_probability(self, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Whoever may move is drawn from the whole law: how probable staying is, it says."""
        return jnp.where(self.process.move_probability(z_N, t_N, s_N) > 0, 1, 0).astype(t_N.dtype)

    def total_rate(self, z_N: Array, t_N: Array) -> Array:
        """Total intensities depend on the prediction, but for rows that stay."""
        return jnp.where(self.process.total_rate(z_N, t_N) == 0, 0, jnp.inf).astype(t_N.dtype)


@dataclasses.dataclass(frozen=True)
class ClassifierNet(Net):
    """Adds gamma (log p(y | z with v at l) - log p(y | z)) to the logs of predictions or laws.

    Masked: to log x_theta at the masked positions, renormalised there: positions are revealed when
    the schedule says, as with an exact classifier the published law does too (its total intensity
    does not depend on y). Otherwise, and with `steer(..., whole=True)`, to the laws and intensities
    of the step, staying masked among them, as published. `exact` asks the
    classifier about all L V single changes; `first_order` takes the gradient in the embedding,
    <d log p / d e_l, E_v - E_z>, one forward and one backward pass. Calls to the network are
    counted, those to the classifier are not. Temperature and truncation act before the guidance.
    """

    classifier: Any = None
    gamma: float = 1.0
    mode: str = "exact"
    target: Array | None = None

    @property
    def paired(self) -> bool:
        """Where laws are shifted, not predictions."""
        return isinstance(self.process, Shifted)

    def few(self, rows: Array) -> ClassifierNet:
        """With the classes of these rows."""
        assert self.target is not None
        return dataclasses.replace(super().few(rows), target=self.target[rows])  # type: ignore[call-arg,return-value]

    def beside(self, z: Any, clock: Any) -> Any:
        """exact: the whole row and the place in it; first order: the gradient at the place."""
        assert self.target is not None
        clock_B = self.process.conditioning(clock)
        length = z.shape[1]
        if self.mode == "first_order":
            total = lambda e: jnp.sum(self.classifier(e, clock_B, self.target))
            slope = jax.grad(total)(self.classifier.table[z])
            return slope.reshape(-1, slope.shape[-1])
        rows = lambda a: jnp.repeat(a, length, axis=0)
        place = jnp.tile(jnp.arange(length), z.shape[0])
        return rows(z), place, rows(clock_B), rows(self.target)

    def predict(self, logits_NV: Array, z_N: Array, t_N: Array, beside: Any) -> Array:
        """The guided prediction, or the pair."""
        pred = super().predict(logits_NV, z_N, t_N, ())
        values = self._first_order(beside) if self.mode == "first_order" else self._exact(beside)
        values = values.astype(pred.dtype)
        shift = self.gamma * (values - jnp.take_along_axis(values, z_N[:, None], axis=1))
        if self.paired:
            return jnp.stack([pred, shift], axis=1)
        hidden = self.process.scored(z_N)[:, None]
        return jnp.where(hidden, jax.nn.log_softmax(pred + shift, axis=-1), pred)

    def _first_order(self, slope_NE: Array) -> Array:
        return slope_NE @ self.classifier.table.T.astype(slope_NE.dtype)

    def _exact(self, beside: Any) -> Array:
        z_NL, place_N, clock_N, label_N = beside
        here = place_N[:, None] == jnp.arange(z_NL.shape[1])

        def ask(v):
            return self.classifier(
                self.classifier.table[jnp.where(here, v, z_NL)], clock_N, label_N
            )

        states = jnp.arange(self.classifier.table.shape[0], dtype=z_NL.dtype)
        return jax.lax.map(ask, states).T


def steer(
    net: Net,
    classifier: Classifier,
    label_B: Array,
    *,
    gamma: float,
    mode: str = "exact",
    whole: bool = False,
) -> Net:
    """The network steered towards a class by a classifier of noisy tokens.

    Args:
      net: any network, with or without a latent; its own label, if any, stays.
      classifier: log p(y | z_t, t).
      label_B: class of each row.
      gamma: strength; 0 = none, 1 = the conditional law if network and classifier are exact.
      mode: "exact" or "first_order".
      whole: shift the whole law of a step for masked diffusion too, as published; for rules on a
        time grid, whose rows are then all projected.

    Raises:
      ValueError: for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
    fields = {f.name: getattr(net, f.name) for f in dataclasses.fields(Net)}
    if whole or not net.process.absorbing:
        process: Process = Shifted(net.process)  # type: ignore[assignment]
        fields["process"] = process
    return ClassifierNet(**fields, classifier=classifier, target=label_B, gamma=gamma, mode=mode)
