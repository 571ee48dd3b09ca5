"""What a target is: a weight of every configuration; its normaliser where it can be enumerated."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.types import Array

MOST = 1 << 20  # configurations that are enumerated
BLOCK = 1 << 14  # of them at a time


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is known exactly of a target.

    Attributes:
      log_z: log of the sum of all weights.
      means: of observables by name; those that this way cannot tell are missing.
      how: it was computed.
    """

    log_z: float
    means: dict[str, float]
    how: str


class Target:
    """pi(x) = exp(log_weight(x)) / Z over `states`^`sites`; frozen dataclasses are targets.

    A class of one's own gives `sites`, `states` and `log_weight`; `observables` if it has any.
    """

    @property
    def sites(self) -> int:
        """L, variables of a configuration."""
        raise TypeError(f"{type(self).__name__} does not say how many sites it has")

    @property
    def states(self) -> int:
        """Values of a site: 0 .. states - 1."""
        raise TypeError(f"{type(self).__name__} does not say how many states a site has")

    def log_weight(self, x_BL: Array) -> Array:
        """-U(x) of configurations int32 [B, L], nats [B]; a -inf is a configuration ruled out."""
        raise TypeError(f"{type(self).__name__} defines no log_weight")

    def observables(self, x_BL: Array) -> dict[str, Array]:
        """Numbers [B] of configurations whose means are wanted, by name."""
        del x_BL
        return {}

    def measured(self, x_BL: Array) -> dict[str, Array]:
        """The energy U(x) and the observables, [B] each."""
        return {"energy": -self.log_weight(x_BL), **self.observables(x_BL)}

    def truth(self) -> Truth | None:
        """By enumeration in float64 where there are at most 2^20 configurations, else None."""
        if self.sites * math.log2(self.states) > math.log2(MOST):
            return None
        count = self.states**self.sites
        with jax.enable_x64(True):
            one = jax.jit(lambda n: self._block(jnp.arange(BLOCK) + n))
            parts = [one(n) for n in range(0, count, BLOCK)]
        parts = [jax.tree.map(lambda a: np.asarray(a, np.float64), p) for p in parts]
        # What is past the last configuration comes last.
        joined: Any = jax.tree.map(lambda *a: np.concatenate(a)[:count], *parts)
        weight, values = joined
        top = weight.max()
        share = np.exp(weight - top)
        total = math.fsum(share)
        possible = share > 0  # an energy is infinite elsewhere
        mean = lambda v: math.fsum(share[possible] * v[possible]) / total
        means = {name: mean(v) for name, v in values.items()}
        entropy = float(top + math.log(total)) + means["energy"]
        return Truth(
            log_z=float(top + math.log(total)),
            means={**means, "entropy": entropy},
            how=f"{count:,} configurations enumerated",
        )

    def _block(self, number: Array) -> tuple[Array, dict[str, Array]]:
        """Log-weights and measured numbers of configurations by number."""
        power = self.states ** jnp.arange(self.sites)
        x = (number[:, None] // power[None] % self.states).astype(jnp.int32)
        return self.log_weight(x), self.measured(x)
