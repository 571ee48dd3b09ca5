"""Psi-samplers, as in the code of Duo (arXiv 2506.10892): the posterior mixed with noising anew."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState


def log_psi(
    process: Process, pred_NV: Array, z_N: Array, t_N: Array, s_N: Array, kappa: float
) -> Array:
    """Log of kappa p(z_s | z_t) + (1 - kappa) (alpha_s p(x0 | z_t) + (1 - alpha_s) noise), [N, V].

    p(x0 | z_t) is the posterior at s = 0, so that the mixture keeps the marginals of the process
    whatever kappa: both of its parts do.

    Args:
      process: that of the network.
      pred_NV: prediction of `Process.read`.
      z_N: present tokens z_t.
      t_N: time of each row now.
      s_N: time after the step, s < t.
      kappa: weight of the posterior, in [0, 1].
    """
    posterior = process.log_posterior(pred_NV, z_N, t_N, s_N)
    clean = process.log_posterior(pred_NV, z_N, t_N, None)
    noise = process.schedule.noise(s_N)[:, None]
    anew = (1 - noise) * jnp.exp(clean) + noise * process.noise_law(t_N.dtype)
    law = kappa * jnp.exp(posterior) + (1 - kappa) * anew
    return jnp.where(law > 0, jnp.log(jnp.where(law > 0, law, 1)), -jnp.inf)


@register("step", "psi")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Psi(Step):
    """kappa = 1: ancestral; 0: predict x0 whole and noise it anew to s; between: both at a time.

    Below 1 settled positions may be drawn again, so all free rows are projected.
    """

    no_way = "it takes tokens back, and a text does not say what stood in its places before"
    kappa: float = 0.5

    def __post_init__(self):
        if not 0 <= self.kappa <= 1:
            raise ValueError(f"kappa is {self.kappa}; it must lie in [0, 1]")

    def way(self, process: Process) -> Way:
        """By its own law with the text plugged in, where that leads everywhere.

        A masked one would be told the text at once; the rule may write others and take them back.
        """
        if process.absorbing and self.kappa < 1:
            return super().way(process)
        return Way(law=lambda process, pred, z, t, s: log_psi(process, pred, z, t, s, self.kappa))

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        trunk = net.trunk(state, segment)
        length = state.z.shape[1]

        def move(pred, z, t, args):
            row_draw, s, free = args
            law = log_psi(net.process, pred, z, t, s, self.kappa)
            return row_draw.outcome(law, free.astype(t.dtype), z)

        args = (draw.rows(length), positions.of_rows(s, length), state.free.reshape(-1))
        z = net.rows(move, trunk, state.z, state.clock, args, where=state.free)
        z = jnp.where(state.free, z, state.z)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)
