"""Classifier-free guidance (arXiv 2412.10193): a conditional and an unconditional pass combined."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.types import Array, Draw, Process, Trunk
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


def combine(log_c: Array, log_u: Array, gamma: float) -> Array:
    """Gamma log_c + (1 - gamma) log_u where both are possible, -inf elsewhere; not normalised.

    Rows where nothing is possible to both, as truncation may have it, keep log_c.

    Args:
      log_c: log-law with the condition, [..., V].
      log_u: log-law without it, [..., V].
      gamma: strength; 0 = `log_u`, 1 = `log_c`, where both are possible.
    """
    on = (log_c > -jnp.inf) & (log_u > -jnp.inf)
    mixed = gamma * jnp.where(on, log_c, 0) + (1 - gamma) * jnp.where(on, log_u, 0)
    common = jnp.any(on, axis=-1, keepdims=True)
    return jnp.where(common, jnp.where(on, mixed, -jnp.inf), log_c)


@dataclasses.dataclass(frozen=True)
class TwoPredictionProcess:
    """A process whose prediction is a pair [N, 2, V]; its laws and intensities are combined.

    Where `pairs` is False the predictions are combined instead, and all is as ever from there on.
    """

    process: Any

    @property
    def pairs(self) -> bool:
        """Whether predictions stay pairs."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)

    def _of_both(self, law: Any, pred: Array) -> Array:
        raise TypeError(f"{type(self).__name__} does not say how the two are combined")

    def log_posterior(self, pred: Array, z_N: Array, t_N: Array, s_N: Array | None) -> Array:
        """Combined log p(z_s | z_t), normalised."""
        law = self._of_both(lambda p: self.process.log_posterior(p, z_N, t_N, s_N), pred)
        return jax.nn.log_softmax(law, axis=-1)

    def sample_posterior(
        self, draw: Draw, pred: Array, z_N: Array, t_N: Array, s_N: Array | None
    ) -> Array:
        """A draw from it."""
        if not self.pairs:
            return self.process.sample_posterior(draw, pred, z_N, t_N, s_N)
        law = self.log_posterior(pred, z_N, t_N, s_N)
        return draw.outcome(law, self.process.move_probability(z_N, t_N, s_N), z_N)

    def clean(self, pred: Array, z_N: Array, t_N: Array) -> Array:
        """Combined log p(x0 | z), normalised."""
        if not self.pairs:
            return self.process.clean(pred, z_N, t_N)
        return self.log_posterior(pred, z_N, t_N, None)

    def log_analytic(self, pred: Array, z_N: Array, t_N: Array, s_N: Array) -> Array:
        """Combined Tweedie law, normalised."""
        law = self._of_both(lambda p: self.process.log_analytic(p, z_N, t_N, s_N), pred)
        return jax.nn.log_softmax(law, axis=-1)

    def log_conditional(self, pred: Array, z_N: Array, t_N: Array) -> Array:
        """Combined conditional law, normalised."""
        law = self._of_both(lambda p: self.process.log_conditional(p, z_N, t_N), pred)
        return jax.nn.log_softmax(law, axis=-1)

    def rate(self, pred: Array, z_N: Array, t_N: Array) -> Array:
        """Combined intensities."""
        if not self.pairs:
            return self.process.rate(pred, z_N, t_N)
        return jnp.exp(self._of_both(lambda p: jnp.log(self.process.rate(p, z_N, t_N)), pred))


@dataclasses.dataclass(frozen=True)
class GuidedProcess(TwoPredictionProcess):
    """Reads logits [N, 2, V], conditional first.

    Masked: log x = gamma log x_c + (1 - gamma) log x_u, renormalised. Otherwise the laws of the
    step are combined the same way, and intensities as mu_c^gamma mu_u^(1 - gamma).
    """

    gamma: float

    @property
    def pairs(self) -> bool:
        """Where tokens have no mask: laws of points are those of the token that they lead to."""
        return not (self.process.absorbing or self.process.points)

    def read(self, logits: Array, z_N: Array, clock_N: Array) -> Array:
        """The combined prediction, or the pair."""
        log_c, log_u = (self.process.read(logits[:, i], z_N, clock_N) for i in (0, 1))
        if not self.pairs:
            return jax.nn.log_softmax(combine(log_c, log_u, self.gamma), axis=-1)
        return jnp.stack([log_c, log_u], axis=1)

    def _of_both(self, law: Any, pred: Array) -> Array:
        if not self.pairs:
            return law(pred)
        return combine(law(pred[:, 0]), law(pred[:, 1]), self.gamma)


@dataclasses.dataclass(frozen=True)
class GuidedNet(Net):
    """Two passes a call, with and without the condition, each with a latent of its own.

    They are one call of the network, on a batch in which the two stand beside each other, so that
    on several devices a row stays where it is.

    The condition is the label, replaced by `null`, or without labels (null < 0) the clamped tokens,
    hidden.
    """

    null: int = 0

    @property
    def passes(self) -> int:
        """Two."""
        return 2

    def latent(self, batch: int, length: int) -> Any:
        """A latent for each pass."""
        return (self.denoiser.latent(batch, length), self.denoiser.latent(batch, length))

    def call(self, state: SampleState, segment: Array | None = None) -> Trunk:
        """Both passes at once; features [B, L, 2, D]."""
        (label, z), (no_label, without) = self._conditions(state)
        own = (self.unit, self.signal, state.clock, segment)
        unit, signal, clock, segment = beside(own, own)
        net = dataclasses.replace(plain(self), unit=unit, signal=signal)
        net = dataclasses.replace(net, label=beside(label, no_label))
        trunk = net.call(
            state._replace(z=beside(z, without), clock=clock, h=beside(*state.h)), segment
        )
        of = lambda tree, i: jax.tree.map(lambda a: a.reshape(-1, 2, *a.shape[1:])[:, i], tree)
        features = jnp.stack([of(trunk.features, i) for i in (0, 1)], axis=2)
        return Trunk(features=features, latent=tuple(of(trunk.latent, i) for i in (0, 1)))

    def _conditions(self, state: SampleState) -> tuple[tuple[Any, Array], tuple[Any, Array]]:
        """Label and tokens of the two passes."""
        if self.null < 0:
            prompt = ~state.free if state.prompt is None else state.prompt
            return (None, state.z), (None, self.process.mask_at(state.z, prompt))
        assert self.label is not None
        return (self.label, state.z), (jnp.full_like(self.label, self.null), state.z)


def beside(first: Any, second: Any) -> Any:
    """Rows of both in turn, leaves [2 B, ...].

    Args:
      first: a pytree, leaves [B, ...].
      second: another in the same structure.
    """
    join = lambda a, b: jnp.stack([a, b], axis=1).reshape(2 * a.shape[0], *a.shape[1:])
    return jax.tree.map(join, first, second)


def plain(net: Net) -> Net:
    """The same network without guidance."""
    fields = {f.name: getattr(net, f.name) for f in dataclasses.fields(Net)}
    return Net(**fields)


def guide(net: Net, label_B: Array, *, null: int, gamma: float) -> Net:
    """The network guided towards a class.

    Args:
      net: a network that takes labels, trained with labels dropped to `null`.
      label_B: class of each row.
      null: the label that means none (num_classes).
      gamma: strength; 0 unconditional and 1 conditional, each with one pass, otherwise two.
    """
    if gamma in (0.0, 1.0):
        return dataclasses.replace(net, label=label_B if gamma else jnp.full_like(label_B, null))
    return pair(net, label_B, null=null, gamma=gamma)


def guide_prompt(net: Net, *, gamma: float) -> Net:
    """The network guided towards what is clamped: the second pass has it hidden.

    Args:
      net: a network of masked diffusion, trained with prompts that were hidden at times.
      gamma: strength; 1 = conditional, with one pass, otherwise two.

    Raises:
      ValueError: for a process that cannot hide tokens.
    """
    if gamma == 1.0:
        return net
    if not net.process.absorbing:
        raise ValueError("guidance by a prompt hides it, which needs masked diffusion")
    return pair(net, None, null=-1, gamma=gamma)


def pair(net: Net, label_B: Array | None, *, null: int, gamma: float) -> GuidedNet:
    """`guide` without its short cuts.

    Args:
      net: network without guidance.
      label_B: classes; None = without a class.
      null: the label that means none.
      gamma: strength; 0 = without the class, 1 = with it.
    """
    fields = {f.name: getattr(net, f.name) for f in dataclasses.fields(Net)}
    process: Process = GuidedProcess(net.process, gamma)  # type: ignore[assignment]
    return GuidedNet(**(fields | dict(process=process, label=label_B, null=null)))
