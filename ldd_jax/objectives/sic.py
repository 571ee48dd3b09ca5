"""The loss of informed correctors: the bound, and the tokens that a step has just revealed.

arXiv 2407.21243, section 5, with weights as they follow from its intensities.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.checks import at_least_one, require
from ldd_jax.core.draws import Production
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Batch, Denoiser, Loss, Trunk
from ldd_jax.core.vocabulary_tiles import rows
from ldd_jax.objectives.nelbo import Nelbo

REVEAL = 100  # beside the sites of `nelbo`


@register("objective", "sic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sic(Nelbo):
    """NELBO + integral over t of E sum_{i revealed in [s, t)} -log p(x^i | x_s without i).

    x_s is z_t after an ancestral step of length 1 / `steps` by the network itself (no gradient), so
    that the second term sees its own mistakes beside what it predicts; each token counts once on
    the way from t = 1 to 0, as in the NELBO. For masked diffusion and hollow networks, whose
    prediction at a visible token leaves that token out. A latent goes from z_t to x_s as in the
    sampler. Costs a trunk and a projection more. Not a bound; `as_bound` is that of the network.

    Attributes:
      steps: of the sampler whose reveals are imitated.
    """

    steps: int = 64

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "steps")
        process = self.process
        if process is not None and not (process.absorbing and process.predicts == "clean"):
            raise ValueError("sic scores revealed tokens of masked diffusion; use process masked")
        if self.times.registered[1] not in ("uniform", "importance"):
            raise ValueError("sic integrates over time; its times are uniform or importance")

    def as_bound(self, passes: int) -> Nelbo:
        """The negative evidence lower bound of masked diffusion, by the same network."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Nelbo)}
        return Nelbo(**fields).as_bound(passes)

    def score(
        self,
        denoiser: Denoiser,
        batch: Batch,
        z: Any,
        clock: Any,
        factor: Array,
        gate: Array,
        keys_B: Array | None,
    ) -> Loss:
        """Both terms; `loss_B` their sum, `scored` the masked rows of the first."""
        require(
            denoiser.hollow,
            "objective sic asks what the network says of tokens that it sees; use a network that "
            "does not look at its own place (model hollow)",
        )
        trunk = self.scored_pass(denoiser, batch, z, clock, gate, keys_B)
        length = batch.z0.shape[1]
        args = (*positions.flat((batch.z0, z)), positions.of_rows(clock, length))
        on = self.process.scored(z) & ~batch.keep
        first = self.summed(denoiser, batch, trunk.features, self.integrand, args, factor, on)

        s = jnp.maximum(clock - 1 / self.steps, 0)
        draw = Production.of(jax.random.fold_in(gate, REVEAL), batch.index)
        x, fixed = jax.lax.stop_gradient(
            (self.revealed(denoiser, trunk, z, clock, s, on, draw), trunk.latent)
        )
        new = self.process.scored(z) & ~self.process.scored(x)
        again = denoiser.trunk(x, self.condition(batch, x, s), fixed, key=None)
        second = self.summed(
            denoiser, batch, again.features, self._left_out, args, self.steps * factor, new
        )
        metrics = first.metrics | {"loss_B": first.metrics["loss_B"] + second.metrics["loss_B"]}
        return Loss(first.total + second.total, metrics)

    def revealed(
        self,
        denoiser: Denoiser,
        trunk: Trunk,
        z: Array,
        t: Array,
        s: Array,
        free: Array,
        draw: Production,
    ) -> Array:
        """x_s ~ p(x_s | z_t): which masks are opened needs no network, what they become does.

        Args:
          denoiser: its head makes the logits.
          trunk: of the scored pass at z_t.
          z: masked tokens z_t, [B, L].
          t: their time, [B] or [B, L].
          s: time to go to, s < t.
          free: [B, L], True where a token may be revealed.
          draw: chance of this draw, one key per example.

        Returns:
          x_s, [B, L].
        """
        length = z.shape[1]
        row = draw.rows(length)
        t_N, s_N = (positions.of_rows(a, length) for a in (t, s))
        z_N = positions.flat(z)
        moves = row.event(self.process.move_probability(z_N, t_N, s_N)) & positions.flat(free)

        def move(logits, args):
            row, z, t, s = args
            return self.process.sample_posterior(row, self.process.read(logits, z, t), z, t, s)

        given = (positions.flat(trunk.features), (row, z_N, t_N, s_N))
        x = rows(
            move,
            denoiser.head,
            *given,
            where=moves,
            tile=self.tile,
            groups=self.groups or 1,
            length=length,
        )
        return jnp.where(moves, x, z_N).reshape(z.shape)

    def _left_out(self, logits_NV: Array, z0_N: Array, z_N: Array, clock_N: Array) -> Array:
        """-log p(x^i | the others) of rows that were masked in z: those of the second term are."""
        law = self.process.read(logits_NV, z_N, clock_N)
        return -jnp.take_along_axis(law, z0_N[:, None], 1)[:, 0]
