"""The latent of the scored pass from calls at the states that a sampler comes through before it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.draws import example_keys, fold, uniforms
from ldd_jax.core.registry import component, register
from ldd_jax.core.types import Array, Batch, Cond, Denoiser, Loss
from ldd_jax.objectives import windows
from ldd_jax.objectives.context import BatchGate, gated, iterated
from ldd_jax.objectives.strata import stratified
from ldd_jax.objectives.windows import (
    ALONG,
    CONDITION,
    CORRUPT,
    DROPOUT,
    GATE,
    TIMES,
    Window,
    Windowed,
    again,
)

SCORED = ("last", "all")


@register("context", "unrolled")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Unrolled(Windowed):
    """h carried along u = passes + 1 states of one forward trajectory, z_{t_1} to the scored z_t.

    The states are neighbours of a grid of `steps` calls: of the times' uniform number they lie
    1 / steps apart. The first gets h = 0, as does one at which a sampler begins (t_1 > 1 is left
    out). `steps` 0 keeps all passes at the same z: then it is `PseudoContext`, to the bit.

    `scored` all: each state j is scored where there is one, with weight 1 / c, c the number of
    windows that its time lies in, so that the sum over states has the mean of the bound.

    Attributes:
      p: probability that an example has a context; 1 where all states are scored.
      passes: calls before the scored one.
      steps: of the grid whose neighbours they are; 0 = all at the same z.
      gradient: the last passes through which the loss reaches back, 0 = none; where all states are
        scored, the passes from which it reaches the one before.
      scored: last or all.
      gate: who has a context.
    """

    p: float = 1.0
    passes: int = 1
    steps: int = 64
    gradient: int = 0
    scored: str = "last"
    gate: Any = component("gate", BatchGate)

    def __post_init__(self):
        at_least_one(self, "passes")
        if not 0 <= self.p <= 1:
            raise ValueError(f"p = {self.p} is not a probability")
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; 0 = the same state, n = those of n steps")
        if not 0 <= self.gradient <= self.passes:
            raise ValueError(
                f"gradient is {self.gradient}; it goes through 0 to {self.passes} passes"
            )
        if self.scored not in SCORED:
            raise ValueError(f"scored {self.scored!r} is not one of {', '.join(SCORED)}")
        if self.scored == "all" and self.p < 1:
            raise ValueError("scored all trains h = 0 at the first state; set p to 1")

    @property
    def forward(self) -> float:
        """Expected passes of an update that are run forward only."""
        return self.p * (self.passes - self.gradient) if self.scored == "last" else 0.0

    @property
    def carried_calls(self) -> float:
        """Expected calls of an update whose latent goes on."""
        return self.p * self.passes

    @property
    def trained(self) -> float:
        """Expected passes that are run backward as well, the scored ones among them."""
        return 1 + (self.p * self.gradient if self.scored == "last" else self.passes)

    @property
    def states(self) -> int:
        """How many states of an example are scored."""
        return 1 if self.scored == "last" else self.passes + 1

    def check(self, batch: int) -> None:
        """Refuse a (micro)batch that the gate cannot divide."""
        if self.p < 1:
            self.gate.check(self.p, batch)

    @property
    def moves(self) -> bool:  # type: ignore[override]
        """Not where all passes see the scored state, and it alone is scored."""
        return self.steps > 0 or self.scored == "all"

    def __call__(
        self,
        denoiser: Denoiser,
        z: Any,
        cond: Cond,
        keys_B: Array | None,
        key: Array,
        index_B: Array,
    ) -> Any:
        """H [B, L, K] float32 where all passes see the same z: see `PseudoContext`.

        `denoiser`, `z`, `cond`, `keys_B`, `key` and `index_B` are those of `PseudoContext`.
        """
        run = iterated(denoiser, self.passes, self.gradient)
        return gated(self, run, denoiser, z, cond, keys_B, key, index_B)

    def window(self, objective: Any, batch: Batch, u_B: Array, keys_B: Array) -> Window:
        """The states that lead to that of `u_B`, and it.

        Args:
          objective: with process and times.
          batch: clean rows.
          u_B: a stratified uniform per example, the place of the scored state.
          keys_B: its own key.
        """
        back = self.passes - jnp.arange(self.passes + 1)
        if not self.steps:
            z, clock, factor = objective.corrupted(batch, u_B, keys_B)
            alike = lambda a: jnp.broadcast_to(a, (len(back), *a.shape))
            z, clock, factor, u = jax.tree.map(alike, (z, clock, factor, u_B))
            return Window(z, clock, factor, u >= 0, jnp.full_like(u, 1 / self.states))
        before = jnp.floor(u_B * self.steps)  # calls that a sampler has made
        live = back[:, None] <= before
        place = u_B - jnp.minimum(back[:, None], before) / self.steps
        place = jnp.maximum(place, 0)  # rounding
        clock, factor = jax.vmap(lambda u: windows.timed(objective, u, batch.z0.shape[1]))(place)
        z, _, _ = objective.corrupted(batch, place[0], keys_B)
        z = windows.on_from(objective.process, batch, z, clock, fold(keys_B, ALONG))
        windows_of = jnp.ceil((1 - u_B) * self.steps) + back[:, None]
        share = 1 / jnp.clip(windows_of, 1, self.states)
        return Window(z, clock, factor, live, share)

    def loss(self, objective: Any, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """See `Nelbo.__call__`.

        Args:
          objective: whose bound it is.
          denoiser: network with the parameters of this update.
          batch: clean rows.
          key: PRNG key of the update.
        """
        site = lambda i: jax.random.fold_in(key, i)
        own = lambda i: example_keys(site(i), batch.index)
        u = stratified(site(TIMES), batch.index, batch.total)
        window = self.window(objective, batch, u, own(CORRUPT))
        if objective.condition_dropout:
            batch, z = objective.without(batch, window.z, uniforms(own(CONDITION), ()))
            window = window._replace(z=z)
        keys_B = own(DROPOUT) if objective.dropout else None
        if self.scored == "all":
            h = denoiser.latent(*batch.z0.shape)
            features, _ = self.scored_all(objective, denoiser, batch, window, h, site(GATE), keys_B)
            return self.summed(objective, denoiser, batch, window, features)
        cond, told = self.told(objective, batch, window, site(GATE))
        h = self._latent(denoiser, window, told, cond, again(keys_B), site(GATE), batch.index)
        trunk = denoiser.trunk(window.z[-1], cond._replace(clock=told[-1]), h, key=keys_B)
        return self.summed(objective, denoiser, batch, window.last(), trunk.features[None])

    def _latent(self, denoiser, window, told, cond, keys_B, key, index_B) -> Any:
        """H before the scored pass, which alone is scored."""
        stopped, closed = jax.lax.stop_gradient(denoiser), self.passes - self.gradient
        by_example = lambda tree: jax.tree.map(lambda a: a[:-1].swapaxes(0, 1), tree)

        def run(given, cond, keys_B):
            _, z, live = given
            part = lambda a, b: jax.tree.map(lambda x: x.swapaxes(0, 1)[a:b], (z, cond.clock, live))
            h = denoiser.latent(*z.shape[::2])
            h, _ = windows.along(stopped, part(0, closed), cond, h, keys_B, 0)
            h = jax.lax.stop_gradient(h)
            h, _ = windows.along(denoiser, part(closed, self.passes), cond, h, keys_B, closed)
            return h

        given = (window.z[-1], *by_example((window.z, window.live)))
        cond = cond._replace(clock=by_example(told))
        return gated(self, run, denoiser, given, cond, keys_B, key, index_B)
