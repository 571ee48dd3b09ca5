"""Where the latent of the scored pass comes from: nowhere, or a first pass without gradient.

LDDM, arXiv 2510.19304, section 4.2: with probability p, h is the trunk output of a pass with
h = 0 under stop_gradient. Pass 1 is a trunk call: it pays neither the vocabulary projection nor
stored residuals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import require
from ldd_jax.core.draws import example_keys
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Cond, Denoiser

# Scope of the branch taken with probability p.
GATE = "context_gate"

Run = Callable[[Any, Cond, Array | None], Any]


@register("gate", "batch")
@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchGate:
    """One replicated draw a step: the whole global batch has a context, or none has."""

    def check(self, p: float, batch: int) -> None:
        """Any p and batch will do."""

    def __call__(self, p: float, run: Run, zeros: Any, z, cond, keys_B, key, index_B) -> Any:
        """H of every example.

        Args:
          p: probability of a context.
          run: (z, cond, keys) to h, of as many examples as it is given.
          zeros: h of an example without a context, leaves [B, ...].
          z: corrupted state, [B, L].
          cond: what the network is told beside it, with its clock.
          keys_B: a PRNG key per example for dropout; None = no dropout.
          key: PRNG key of the update, for the gate's own draw.
          index_B: of the examples in the global batch.
        """
        del index_B
        with jax.named_scope(GATE):
            on = jax.random.bernoulli(key, p)
            return jax.lax.cond(on, run, lambda *_: zeros, z, cond, keys_B)


@register("gate", "example")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleGate:
    """A draw per example; everybody pays for pass 1."""

    def check(self, p: float, batch: int) -> None:
        """Any p and batch will do."""

    def __call__(self, p: float, run: Run, zeros: Any, z, cond, keys_B, key, index_B) -> Any:
        """H of every example, zeros where its draw says so."""
        del zeros
        on = jax.vmap(lambda k: jax.random.bernoulli(k, p))(example_keys(key, index_B))
        h = run(z, cond, keys_B)
        return jax.tree.map(lambda a: jnp.where(on.reshape(-1, *[1] * (a.ndim - 1)), a, 0), h)


@register("gate", "fraction")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FractionGate:
    """The first p * group examples of every `group` consecutive ones, by global index, pay.

    Constant step time, cost exactly p. Times are stratified in bit-reversed order with a cyclic
    shift, so who pays is independent of t.
    """

    group: int = 10

    def check(self, p: float, batch: int) -> int:
        """Examples of a group that pay.

        Raises:
          UserError: if the groups do not divide the (micro)batch, or p is no whole share of one.
        """
        paying = round(p * self.group)
        require(
            self.group > 0 and batch % self.group == 0 and abs(paying - p * self.group) < 1e-6,
            f"gate fraction: the batch ({batch}) must be a multiple of group ({self.group}) "
            f"and p * group ({p * self.group:g}) a whole number",
        )
        return paying

    def __call__(self, p: float, run: Run, zeros: Any, z, cond, keys_B, key, index_B) -> Any:
        """H of every example, zeros for those that do not pay."""
        del key
        paying = self.check(p, index_B.shape[0])
        grouped = lambda a: a.reshape(-1, self.group, *a.shape[1:])
        take = lambda a: grouped(a)[:, :paying].reshape(-1, *a.shape[1:])
        h = run(*jax.tree.map(take, (z, cond, keys_B)))
        put = lambda full, some: (
            grouped(full).at[:, :paying].set(some.reshape(-1, paying, *some.shape[1:]))
        ).reshape(full.shape)
        return jax.tree.map(put, zeros, h)


@register("context", "none")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoContext:
    """h = 0: MDLM and UDLM."""

    carries = False  # a network without a latent will do
    forward = carried_calls = 0.0
    trained = 1.0
    states = 1

    def check(self, batch: int) -> None:
        """Any batch will do."""

    def __call__(
        self,
        denoiser: Denoiser,
        z: Any,
        cond: Cond,
        keys_B: Array | None,
        key: Array,
        index_B: Array,
    ) -> Any:
        """None."""
        del denoiser, z, cond, keys_B, key, index_B


@register("context", "pseudo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PseudoContext:
    """h = sg(trunk(z, h = 0)) with probability p, else 0; `passes` > 1 iterates it.

    `gradient` True lets the loss reach pass 1 (an ablation; the paper stops it).
    """

    p: float = 0.9
    passes: int = 1
    gradient: bool = False
    gate: Any = component("gate", BatchGate)
    carries = True
    states = 1

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f"p = {self.p} is not a probability")
        if self.passes < 1:
            raise ValueError(f"passes = {self.passes}; at least 1 pass makes a context")

    @property
    def forward(self) -> float:
        """Expected passes of an update that are run forward only."""
        return 0.0 if self.gradient else self.p * self.passes

    @property
    def carried_calls(self) -> float:
        """Expected calls of an update whose latent goes on."""
        return self.p * self.passes

    @property
    def trained(self) -> float:
        """Expected passes that are run backward as well, the scored one among them."""
        return 1 + (self.p * self.passes if self.gradient else 0)

    def check(self, batch: int) -> None:
        """Refuse a (micro)batch that the gate cannot divide."""
        if self.p < 1:
            self.gate.check(self.p, batch)

    def __call__(
        self,
        denoiser: Denoiser,
        z: Any,
        cond: Cond,
        keys_B: Array | None,
        key: Array,
        index_B: Array,
    ) -> Any:
        """H [B, L, K] float32; z, cond and keys have leading axis B.

        Args:
          denoiser: network with the parameters of this update.
          z: corrupted state, [B, L].
          cond: what the network is told beside it, with its clock.
          keys_B: a PRNG key per example for dropout; None = no dropout.
          key: PRNG key of the update, for the gate.
          index_B: of the examples in the global batch.

        Raises:
          ValueError: for a network without a latent.
        """
        reached = self.passes if self.gradient else 0
        run = iterated(denoiser, self.passes, reached)
        return gated(self, run, denoiser, z, cond, keys_B, key, index_B)


def iterated(denoiser: Denoiser, passes: int, reached: int) -> Run:
    """(z, cond, keys) to h after `passes` calls at the same z, the first with h = 0.

    From three on the program is as long as for three: the calls after the first are a loop.

    Args:
      denoiser: network with the parameters of this update.
      passes: calls.
      reached: the last ones, which the loss reaches.
    """

    def run(z, cond, keys_B):
        def call(net, i, h):
            keys = None if keys_B is None else jax.vmap(jax.random.fold_in, (0, None))(keys_B, i)
            return net.trunk(z, cond, h, key=keys).latent

        def calls(net, first, last, h):
            if last > first and h is None:
                h, first = call(net, first, None), first + 1
            if last - first < 2:
                return call(net, first, h) if last > first else h
            return jax.lax.scan(lambda h, i: (call(net, i, h), None), h, jnp.arange(first, last))[0]

        closed = passes - reached
        stopped = jax.lax.stop_gradient(denoiser) if closed else denoiser
        return calls(denoiser, closed, passes, calls(stopped, 0, closed, None))

    return run


def gated(
    context: Any, run: Run, denoiser: Denoiser, z: Any, cond: Cond, keys_B: Any, key: Any, index_B
) -> Any:
    """H of those who have a context, zeros of the others.

    Args:
      context: its p and gate.
      run: makes h.
      denoiser: knows the latent's shape.
      z: what `run` takes, leaves [B, ...]; the first has the shape of a state in front.
      cond: of `run`.
      keys_B: of `run`.
      key: PRNG key of the update.
      index_B: of the examples in the global batch.

    Raises:
      ValueError: for a network without a latent.
    """
    zeros = denoiser.latent(*jax.tree.leaves(z)[0].shape[:2])
    if zeros is None:
        raise ValueError("PseudoContext needs a network with a latent (model.latent = True)")
    if context.p == 1:
        return run(z, cond, keys_B)
    return context.gate(context.p, run, zeros, z, cond, keys_B, key, index_B)
