"""AdamW with warm-up, decay and clipping, from optax."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import register, runtime

DECAYS: dict[str, Callable[[float, int, float], optax.Schedule]] = {
    "constant": lambda lr, steps, floor: optax.constant_schedule(lr),
    "cosine": lambda lr, steps, floor: optax.cosine_decay_schedule(lr, max(steps, 1), floor),
    "linear": lambda lr, steps, floor: optax.linear_schedule(lr, lr * floor, max(steps, 1)),
}


def skipped(opt_state: Any) -> Any:
    """The optimizer's state after an update that is left out: only schedules move on.

    The rate is then that of the step's number, whatever was skipped before, and ends where `decay`
    says. Adam's own count stays, since it corrects for the gradients that went into the moments.
    """
    schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
    on = lambda node: node._replace(count=optax.safe_increment(node.count))
    move = lambda node: on(node) if schedule(node) else node
    return jax.tree.map(move, opt_state, is_leaf=schedule)


@register("optim", "adamw")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Clip the global norm, then Adam with decoupled weight decay on every parameter.

    Attributes:
      lr: the highest learning rate.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: share of a parameter, times the rate, that is taken off at every update.
      clip_norm: largest global norm of a gradient; 0 = it is not clipped.
      warmup_steps: updates over which the rate rises linearly.
      decay: of the rate after that: constant, cosine or linear.
      floor: the rate at the end of a decay, as a share of `lr`.
      trainable: patterns of dotted paths of parameters, as a shell has them (*latent_norm*); the
        others keep their bytes and the optimizer nothing of them. None = all are trained.
    """

    lr: float = 3e-4
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    warmup_steps: int = 2500
    decay: str = "constant"
    floor: float = 0.0
    trainable: tuple[str, ...] = ()
    num_steps: int = runtime()

    def __post_init__(self):
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r}: {nearest(self.decay, DECAYS)}")
        for name in ("lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("weight_decay", "clip_norm", "warmup_steps", "floor"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

    def rate(self) -> optax.Schedule:
        """Learning rate by update number, from 0."""
        rest = (self.num_steps or 0) - self.warmup_steps
        after = DECAYS[self.decay](self.lr, rest, self.floor)
        if not self.warmup_steps:
            return after
        rise = lambda n: self.lr * (n + 1) / self.warmup_steps
        return optax.join_schedules([rise, after], [self.warmup_steps])

    def rate_at(self, update: int) -> float:
        """The learning rate of update number `update`, from 1."""
        return float(self.rate()(update - 1))

    def trained(self, params: Any) -> Any:
        """Whether each parameter is trained, a tree of truth values.

        Raises:
          UserError: for a pattern that no parameter has.
        """
        if not self.trainable:
            return jax.tree.map(lambda _: True, params)
        hit: set[str] = set()

        def one(path: Any, _: Any) -> bool:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            found = [p for p in self.trainable if fnmatch.fnmatchcase(name, p)]
            hit.update(found)
            return bool(found)

        out = jax.tree_util.tree_map_with_path(one, params)
        idle = [p for p in self.trainable if p not in hit]
        require(not idle, f"optim.trainable: no parameter is named like {idle[:1]}")
        return out

    def make(self) -> optax.GradientTransformation:
        """The transformation of gradients into updates."""
        whole = self._whole()
        return optax.masked(whole, self.trained) if self.trainable else whole

    def _whole(self) -> optax.GradientTransformation:
        adam = optax.adamw(
            self.rate(), b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay
        )
        clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
        return optax.chain(clip, adam)
