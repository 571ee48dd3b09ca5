"""What all optimizers share: warm-up, a decay of the rate, clipping, and a choice of parameters."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import jax
import optax

from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import runtime


def _cooled(lr: float, steps: int, floor: float, cooldown: float) -> optax.Schedule:
    """Level, and over the last share of the updates a straight line down (arXiv 2404.06395)."""
    last = max(round(cooldown * steps), 1)
    down = optax.linear_schedule(lr, lr * floor, last)
    return optax.join_schedules([optax.constant_schedule(lr), down], [max(steps - last, 0)])


DECAYS: dict[str, Callable[[float, int, float, float], optax.Schedule]] = {
    "constant": lambda lr, steps, floor, cooldown: optax.constant_schedule(lr),
    "cosine": lambda lr, steps, floor, cooldown: optax.cosine_decay_schedule(
        lr, max(steps, 1), floor
    ),
    "linear": lambda lr, steps, floor, cooldown: optax.linear_schedule(
        lr, lr * floor, max(steps, 1)
    ),
    "wsd": _cooled,
}
MOMENTS = ("", "float32", "bfloat16")


def skipped(opt_state: Any) -> Any:
    """The optimizer's state after an update that is left out: only schedules move on.

    The rate is then that of the step's number, whatever was skipped before, and ends where `decay`
    says. Adam's own count stays, since it corrects for the gradients that went into the moments.
    """
    schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
    on = lambda node: node._replace(count=optax.safe_increment(node.count))
    move = lambda node: on(node) if schedule(node) else node
    return jax.tree.map(move, opt_state, is_leaf=schedule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What all share: the global norm is clipped, then the rule's own step, times the rate.

    Attributes:
      lr: the highest learning rate.
      weight_decay: share of a parameter, times the rate, that is taken off at every update.
      undecayed: patterns of dotted paths of parameters from which nothing is taken off, such as
        *norm*, *bias, *table; none = it is taken off all.
      moments: type of the first moment, float32 or bfloat16; "" = that of the parameter.
      variances: the same of Adam's second moment; in bfloat16 it is rounded at random, since its
        changes are smaller than what bfloat16 tells apart.
      clip_norm: largest global norm of a gradient; 0 = it is not clipped.
      warmup_steps: updates over which the rate rises linearly.
      decay: of the rate after that: constant, cosine, linear, or wsd, which is level and falls over
        the last updates.
      cooldown: share of the updates after the warm-up in which wsd falls.
      floor: the rate at the end of a decay, as a share of `lr`.
      trainable: patterns of dotted paths of parameters, as a shell has them (*latent_norm*); the
        others keep their bytes and the optimizer nothing of them. None = all are trained.
    """

    lr: float = 3e-4
    weight_decay: float = 0.0
    undecayed: tuple[str, ...] = ()
    moments: str = ""
    variances: str = ""
    clip_norm: float = 1.0
    warmup_steps: int = 2500
    decay: str = "constant"
    cooldown: float = 0.2
    floor: float = 0.0
    trainable: tuple[str, ...] = ()
    num_steps: int = runtime()

    pace: ClassVar[float] = 1.0
    """Its rate by that of AdamW, for which the recipes are written."""

    def __post_init__(self):
        for name, known in (("decay", DECAYS), ("moments", MOMENTS), ("variances", MOMENTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: "
                                 f"{nearest(getattr(self, name), known)}")  # fmt: skip
        self._above("lr")
        if not 0 < self.cooldown <= 1:
            raise ValueError(f"cooldown is {self.cooldown}; it must lie in (0, 1]")
        for name in ("weight_decay", "clip_norm", "warmup_steps", "floor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

    def _above(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")

    def _shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")

    def rate(self) -> optax.Schedule:
        """Learning rate by update number, from 0."""
        rest = (self.num_steps or 0) - self.warmup_steps
        after = DECAYS[self.decay](self.lr, rest, self.floor, self.cooldown)
        if not self.warmup_steps:
            return after
        rise = lambda n: self.lr * (n + 1) / self.warmup_steps
        return optax.join_schedules([rise, after], [self.warmup_steps])

    def rate_at(self, update: int) -> float:
        """The learning rate of update number `update`, from 1."""
        return float(self.rate()(update - 1))

    def trained(self, params: Any) -> Any:
        """Whether each parameter is trained, a tree of truth values."""
        if not self.trainable:
            return jax.tree.map(lambda _: True, params)
        return named(params, self.trainable)

    def decayed(self, params: Any) -> Any:
        """Whether something is taken off each parameter, a tree of truth values."""
        return jax.tree.map(lambda on: not on, named(params, self.undecayed))

    def patterns(self) -> dict[str, Collection[str]]:
        """Fields that name parameters, each pattern one at least."""
        return {"trainable": self.trainable, "undecayed": self.undecayed}

    def check(self, params: Any) -> None:
        """Refuse a pattern that no parameter has.

        Raises:
          UserError: naming the field.
        """
        for field, patterns in self.patterns().items():
            for pattern in patterns:
                hit = any(jax.tree.leaves(named(params, [pattern])))
                require(hit, f"optim.{field}: no parameter is named like {pattern!r}")

    def rule(self) -> optax.GradientTransformation:
        """The step of this optimizer, times the rate."""
        raise NotImplementedError

    def make(self) -> optax.GradientTransformation:
        """The transformation of gradients into updates; it refuses as `check` when it begins."""
        clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
        whole = optax.chain(clip, self.rule())
        if self.trainable:
            whole = optax.masked(whole, self.trained)

        def init(params: Any) -> Any:
            if isinstance(params, Mapping):  # optax asks with a stand-in for them, too
                self.check(params)
            return _stored(whole.init(params), self.variances)

        return optax.GradientTransformation(init, whole.update)


def _stored(opt_state: Any, kind: str) -> Any:
    """The optimizer's state with Adam's second moments in a type, "" = as they are."""
    adam = lambda node: isinstance(node, optax.ScaleByAdamState)
    cast = lambda a: a.astype(kind) if kind and isinstance(a, jax.Array) else a
    one = lambda node: node._replace(nu=jax.tree.map(cast, node.nu)) if adam(node) else node
    return jax.tree.map(one, opt_state, is_leaf=adam)


def named(params: Any, patterns: Collection[str]) -> Any:
    """Whether each parameter's dotted path is like one of the patterns, a tree of truth values."""

    def one(path: Any, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return any(fnmatch.fnmatchcase(name, p) for p in patterns)

    return jax.tree_util.tree_map_with_path(one, params)
