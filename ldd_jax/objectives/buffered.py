"""The latent of the scored pass from a trajectory that goes on from update to update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.core.checks import at_least_one, require
from ldd_jax.core.draws import example_keys, fold, uniforms
from ldd_jax.core.registry import register, runtime
from ldd_jax.core.types import Array, Batch, Denoiser, Loss
from ldd_jax.objectives import windows
from ldd_jax.objectives.strata import strata
from ldd_jax.objectives.windows import ALONG, CORRUPT, DROPOUT, GATE, Window, Windowed

PHASE = 2  # within an example's key of the corruption
BELOW_ONE = 1 - 2.0**-24


class Rows(NamedTuple):
    """Rows on their way, kept between updates; leaves [B, ...].

    z0, keep, weight: of the data. z: the state of the last call; h: the latent that it left; left:
    calls that are still to come; phase in [0, 1): where within a step the calls of the row lie.
    """

    z0: Any
    keep: Any
    weight: Any
    z: Any
    h: Any
    left: Any
    phase: Any


@register("context", "rollout")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout(Windowed):
    """h of real trajectories: a buffer keeps (x, z, h) of every row of the batch between updates.

    An update calls the network at the next passes + 1 states of each row's forward trajectory, all
    of which are scored, and leaves (z, h) to the next update, whose network reads the h of the one
    before. After `steps` calls a row ends, and one of the update's batch begins in its place with
    h = 0. Rows begin at different states, so that the places of a batch are spread evenly: the mean
    of the loss is that of the bound, with h along the way from t = 1 as the sampler has it (but
    made by parameters that were a little older). With passes = 0 an update costs what one without a
    latent does. A row is seen steps / (passes + 1) times running, and as many fewer rows are seen:
    the default is short for that.

    Attributes:
      steps: calls of a trajectory, 1 / steps of the times' uniform number apart; a multiple of
        passes + 1.
      passes: calls of an update before its last one.
      gradient: passes through which the loss of a later call of the same update reaches back.
    """

    steps: int = 16
    passes: int = 0
    gradient: int = 0
    carried: Callable[[int, int], Any] = runtime()

    forward = 0.0
    p = 1.0

    def __post_init__(self):
        at_least_one(self, "steps")
        if self.passes < 0:
            raise ValueError(f"passes is {self.passes}; it must be 0 or more")
        if not 0 <= self.gradient <= self.passes:
            raise ValueError(
                f"gradient is {self.gradient}; it goes through 0 to {self.passes} passes"
            )
        if self.steps % self.states:
            raise ValueError(
                f"steps {self.steps} is no multiple of passes + 1 ({self.states}), the calls of an "
                "update"
            )

    @property
    def states(self) -> int:
        """Calls of an update for every row, all of which are scored."""
        return self.passes + 1

    @property
    def carried_calls(self) -> float:
        """The same: the last call's latent is kept."""
        return float(self.states)

    @property
    def trained(self) -> float:
        """The same: all of them are run backward."""
        return float(self.states)

    def check(self, batch: int) -> None:
        """Any batch will do."""

    def aux(self, batch: int, length: int) -> Rows:
        """The buffer."""
        like = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
        tokens = like(batch, length, dtype=jnp.int32)
        return Rows(
            z0=tokens,
            keep=like(batch, length, dtype=jnp.bool_),
            weight=like(batch, length),
            z=tokens,
            h=self.carried(batch, length),
            left=like(batch, dtype=jnp.int32),
            phase=like(batch),
        )

    def drawn(self, objective: Any, batch: Batch, aux: Rows, key: Array) -> tuple[Rows, Batch]:
        """The buffer with its next states, and its rows as the batch that is scored.

        Args:
          objective: with process and times.
          batch: of the data, from which rows that have ended are replaced.
          aux: the buffer.
          key: PRNG key of the update.

        Raises:
          UserError: for data with more than tokens, which the buffer does not keep.
        """
        require(
            all(leaf is None for leaf in batch.cond),
            "context rollout keeps plain rows from update to update; use context unrolled for data "
            "with labels, documents, patches or signals",
        )
        process, number = objective.process, self.states
        keys = example_keys(jax.random.fold_in(key, CORRUPT), batch.index)
        new = aux.left == 0
        of = lambda fresh, old: jax.tree.map(
            lambda a, b: jnp.where(new.reshape(-1, *[1] * (b.ndim - 1)), a, b), fresh, old
        )
        rank = jnp.asarray(strata(batch.total))[batch.index]
        rounds = np.int32(self.steps // number)
        begin = jnp.where(batch.step == 0, rank * rounds // batch.total, 0) * number
        turn = jnp.where(new, begin, self.steps - aux.left)
        phase = of(uniforms(fold(keys, PHASE), ()), aux.phase)
        z0, keep, weight = of((batch.z0, batch.keep, batch.weight), aux[:3])
        rows = batch._replace(z0=z0, keep=keep, weight=weight, norm=jnp.sum(weight))
        # The state before, which new rows do not have, and those of this update.
        place = (turn + phase + jnp.arange(-1, number)[:, None]) / self.steps
        place = jnp.clip(place, 0, BELOW_ONE)
        clock, _ = self._timed(objective, place, z0.shape[1])
        gone = process.bridge(fold(keys, ALONG), z0, aux.z, clock[0], clock[1], keep)
        fresh, _, _ = objective.corrupted(rows, place[1], keys)
        z = windows.on_from(process, rows, of(fresh, gone), clock[1:], fold(keys, ALONG + PHASE))
        h = of(jax.tree.map(jnp.zeros_like, aux.h), aux.h)
        aux = Rows(z0, keep, weight, z[-1], h, self.steps - turn - number, phase)
        by_row = lambda a: a.swapaxes(0, 1)
        return aux, rows._replace(drawn=(by_row(z), by_row(place[1:]), h))

    @staticmethod
    def _timed(objective, place, length):
        return jax.vmap(lambda u: windows.timed(objective, u, length))(place)

    def loss(self, objective: Any, denoiser: Denoiser, batch: Batch, key: Array) -> Loss:
        """See `Nelbo.__call__`; `kept` is h after the last call.

        Args:
          objective: whose bound it is.
          denoiser: network with the parameters of this update.
          batch: of `drawn`.
          key: PRNG key of the update.
        """
        site = lambda i: jax.random.fold_in(key, i)
        z, place, h = batch.drawn
        z, place = z.swapaxes(0, 1), place.swapaxes(0, 1)
        clock, factor = self._timed(objective, place, z.shape[2])
        live = jnp.ones(place.shape, bool)
        share = jnp.full_like(place, 1 / self.states)
        window = Window(z, clock, factor, live, share)
        keys_B = example_keys(site(DROPOUT), batch.index) if objective.dropout else None
        features, h = self.scored_all(
            objective, denoiser, batch, window, jax.lax.stop_gradient(h), site(GATE), keys_B
        )
        loss = self.summed(objective, denoiser, batch, window, features)
        # What is no number would stay in the buffer, though its update is skipped.
        finite = lambda a: jnp.where(jnp.isfinite(a), a, 0)
        kept = jax.tree.map(finite, jax.lax.stop_gradient(h))
        return Loss(loss.total, loss.metrics, {"h": kept})
