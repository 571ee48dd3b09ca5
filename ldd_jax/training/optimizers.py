"""Optimizers of optax: AdamW, Lion, Muon and Adafactor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any, ClassVar

import jax
import optax
from optax import contrib

from ldd_jax.core.registry import register
from ldd_jax.training.optimizer import Optimizer, named


@register("optim", "adamw")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101).

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        self._above("eps")
        self._shares("b1", "b2")

    def rule(self) -> optax.GradientTransformation:
        """As `Optimizer.rule`."""
        return optax.adamw(
            self.rate(),
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=self.decayed if self.undecayed else None,
            mu_dtype=self.moments or None,
        )


@register("optim", "lion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """The sign of an average of gradients (arXiv 2302.06675); one moment, lr 3 to 10 times smaller.

    Attributes:
      b1: share of the moment in the sign.
      b2: decay of the moment.
    """

    lr: float = 6e-5
    b1: float = 0.9
    b2: float = 0.99

    pace: ClassVar[float] = 0.2

    def __post_init__(self):
        super().__post_init__()
        self._shares("b1", "b2")

    def rule(self) -> optax.GradientTransformation:
        """As `Optimizer.rule`."""
        return optax.lion(
            self.rate(),
            b1=self.b1,
            b2=self.b2,
            weight_decay=self.weight_decay,
            mask=self.decayed if self.undecayed else None,
            mu_dtype=self.moments or None,
        )


@register("optim", "muon")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Orthogonalised momentum for the matrices of blocks, AdamW for all else.

    The update of a matrix [m, n] is scaled by .2 sqrt(max(m, n)), which gives it Adam's size, so
    that both take one rate (arXiv 2502.16982, equation 4).

    Attributes:
      matrices: patterns of dotted paths of the matrices, [..., in, out] or [..., in, 3, heads,
        channels]; each of a stack by itself.
      beta: decay of the momentum.
      b1: first decay of AdamW.
      b2: second decay of AdamW.
    """

    matrices: tuple[str, ...] = ("*blocks.*.kernel",)
    beta: float = 0.95
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self):
        super().__post_init__()
        self._shares("beta", "b1", "b2")

    def patterns(self) -> dict[str, Collection[str]]:
        """As `Optimizer.patterns`."""
        return super().patterns() | {"matrices": self.matrices}

    def rule(self) -> optax.GradientTransformation:
        """As `Optimizer.rule`."""
        numbers = lambda params: jax.tree.map(
            lambda p: contrib.MuonDimensionNumbers(*map(tuple, sides(p.ndim))), params
        )
        rate, mask = self.rate(), self.decayed if self.undecayed else None
        orthogonal = optax.chain(
            contrib.scale_by_muon(
                beta=self.beta,
                mu_dtype=self.moments or None,
                weight_dimension_numbers=numbers,
            ),
            optax.stateless(lambda updates, _: jax.tree.map(_as_adam, updates)),
            optax.add_decayed_weights(self.weight_decay, mask),
            optax.scale_by_learning_rate(rate),
        )
        adam = optax.adamw(
            rate,
            b1=self.b1,
            b2=self.b2,
            weight_decay=self.weight_decay,
            mask=mask,
            mu_dtype=self.moments or None,
        )
        on = lambda params: named(params, self.matrices)
        off = lambda params: jax.tree.map(lambda x: not x, on(params))
        return optax.chain(optax.masked(orthogonal, on), optax.masked(adam, off))


@register("optim", "adafactor")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Second moments of a matrix as one row and one column (arXiv 1804.04235).

    The update is g / sqrt(v), divided by max(1, its root mean square / `clip`); the rate is the
    config's own, as for Adam.

    Attributes:
      power: the second moment of update n keeps 1 - n^-power of the one before.
      clip: largest root mean square of a parameter's update, before the rate.
      b1: decay of a first moment, which takes memory; 0 = there is none.
      relative: times the root mean square of the parameter, 0.001 at least, as published.
      factored: sides of a matrix from which on it is a row and a column.
    """

    power: float = 0.8
    clip: float = 1.0
    b1: float = 0.0
    relative: bool = False
    factored: int = 128

    def __post_init__(self):
        super().__post_init__()
        self._above("power", "clip", "factored")
        self._shares("b1")

    def rule(self) -> optax.GradientTransformation:
        """As `Optimizer.rule`."""
        parts = [
            _by_matrix(
                optax.scale_by_factored_rms(
                    decay_rate=self.power, min_dim_size_to_factor=self.factored
                )
            ),
            optax.clip_by_block_rms(self.clip),
        ]
        if self.relative:
            parts.append(optax.scale_by_param_block_rms())
        if self.b1:
            kind = self.moments or None
            parts.append(optax.ema(self.b1, debias=False, accumulator_dtype=kind))
        mask = self.decayed if self.undecayed else None
        parts.append(optax.add_decayed_weights(self.weight_decay, mask))
        parts.append(optax.scale_by_learning_rate(self.rate()))
        return optax.chain(*parts)


def _as_adam(update: jax.Array) -> jax.Array:
    """An orthogonal matrix [..., m, n] in the size that an update of Adam has."""
    size = lambda axes: math.prod(update.shape[axis] for axis in axes)
    return update * (0.2 * math.sqrt(max(map(size, sides(update.ndim)))))


def sides(ndim: int) -> tuple[range, range]:
    """Axes, from the last, of a kernel's inputs and outputs: [..., in, out].

    One of four axes or more is [..., in, 3, heads, channels], of queries, keys and values.
    """
    outputs = 3 if ndim > 3 else 1
    return range(-outputs - 1, -outputs), range(-outputs, 0)


def _by_matrix(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """A rule that sees every kernel as matrices [..., in, out]."""

    def matrix(a: Any) -> Any:
        if getattr(a, "ndim", 0) < 4:
            return a
        outputs = sides(a.ndim)[1]
        return a.reshape(*a.shape[: outputs[0]], math.prod(a.shape[i] for i in outputs))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        given = (jax.tree.map(matrix, tree) for tree in (updates, params))
        new, state = rule.update(next(given), state, next(given))
        return jax.tree.map(lambda a, like: a.reshape(like.shape), new, updates), state

    return optax.GradientTransformation(
        lambda params: rule.init(jax.tree.map(matrix, params)), update
    )


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adafactor": Adafactor,
    "adamw": AdamW,
    "lion": Lion,
    "muon": Muon,
}
