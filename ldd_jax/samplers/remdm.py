"""Remasking (ReMDM, arXiv 2503.00307): ancestral steps that may take a token back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from ldd_jax.core.checks import nearest
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.processes.base import onehot_log
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

# sigma from (eta, sigma_max, alpha_t, alpha_s); "conf" shares sigma_max out over the positions.
STRENGTHS: dict[str, Callable] = {
    "cap": lambda eta, most, a_t, a_s: jnp.minimum(eta, most),
    "rescale": lambda eta, most, a_t, a_s: eta * most,
    "forward_backward": lambda eta, most, a_t, a_s: jnp.minimum((a_s - a_t) / a_t, most),
    "conf": lambda eta, most, a_t, a_s: eta * most,
    "loop": lambda eta, most, a_t, a_s: jnp.minimum(eta, most),
}


@register("step", "remdm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReMDM(Step):
    """Remask with probability sigma, reveal so that the marginals stay the forward ones.

    With sigma <= sigma_max = min(1, (1 - alpha_s)/alpha_t), a revealed position is masked again
    with probability sigma, and a masked one revealed with probability
    (alpha_s - (1 - sigma) alpha_t)/(1 - alpha_t) (eqs. 5, 6).

    strength: cap min(eta, sigma_max); rescale eta sigma_max; forward_backward
    (alpha_s - alpha_t)/alpha_t; conf eta sigma_max times softmax(-psi) over the revealed positions,
    psi = the network's own probability of the token when it was written; loop: no remasking until
    `t_on`, then alpha held at `alpha_on` with sigma = min(eta, sigma_max) until `t_off`, then on to
    the end.
    The latent of a remasked position has seen the token: latent.reset_on_remask takes it back.
    """

    one_way = "takes tokens back to the mask, so it needs masked diffusion"
    one_clock = "shares remasking out over a row"
    no_way = "it takes tokens back, and a text does not say what stood in its places before"
    strength: str = "rescale"
    eta: float = 0.05
    t_on: float = 0.55
    t_off: float = 0.05
    alpha_on: float = 0.9

    def __post_init__(self):
        if self.strength not in STRENGTHS:
            raise ValueError(f"strength {self.strength!r}: {nearest(self.strength, STRENGTHS)}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; it must lie in [0, 1]")
        if not 0 < self.t_off < self.t_on < 1:
            raise ValueError(f"t_off {self.t_off} and t_on {self.t_on}: 0 < t_off < t_on < 1")
        if not 0 < self.alpha_on < 1:
            raise ValueError(f"alpha_on is {self.alpha_on}; it must lie in (0, 1)")

    def init(self, net: Net, state: SampleState) -> Any:
        """Probability of each token when it was written, [B, L]; only "conf" keeps it."""
        if self.strength != "conf":
            return ()
        return jnp.zeros(state.z.shape, jnp.result_type(float))

    def _time(self, net: Net, t: Array) -> Array:
        """The time of the process at grid time t; it stands still within the loop."""
        if self.strength != "loop":
            return t
        held = net.process.elapsed(jnp.asarray(1 - self.alpha_on, t.dtype))
        before = held + (1 - held) * (t - self.t_on) / (1 - self.t_on)
        return jnp.where(t > self.t_on, before, held * jnp.minimum(t / self.t_off, 1))

    def _sigma(self, net: Net, t_B: Array, s_B: Array, held: Array, shown: Array, psi: Any) -> Any:
        """Probability of remasking, [B, L]."""
        a_t, a_s = (net.process.schedule.alpha(t) for t in (t_B, s_B))
        some = jnp.where(a_t > 0, a_t, 1)
        most = jnp.where(a_t > 0, jnp.minimum(1, (1 - a_s) / some), 1)
        sigma = STRENGTHS[self.strength](self.eta, most, some, a_s)
        if self.strength == "loop":
            sigma = jnp.where(held, sigma, 0)
        if self.strength != "conf":
            return jnp.broadcast_to(sigma[:, None], shown.shape)
        doubt = jnp.where(shown, jnp.exp(-psi), 0)
        total = jnp.sum(doubt, axis=1, keepdims=True)
        return sigma[:, None] * doubt / jnp.where(total > 0, total, 1)

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Array,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        process, shape = net.process, state.z.shape
        held = (state.clock <= self.t_on) & (state.clock > self.t_off)
        t_B, s_B = self._time(net, state.clock), self._time(net, s)
        state = state._replace(clock=t_B)
        hidden = process.scored(state.z)
        sigma = self._sigma(net, t_B, s_B, held, ~hidden & state.free, state.memory)
        a_t, a_s = (process.schedule.alpha(t)[:, None] for t in (t_B, s_B))
        reveal = jnp.clip((a_s - (1 - sigma) * a_t) / (1 - a_t), 0, 1)
        chance = jnp.where(hidden, reveal, sigma).reshape(-1)
        row_draw = draw.rows(shape[1])
        moves = row_draw.event(chance).reshape(shape) & state.free
        trunk = net.trunk(state, segment)

        def move(preds, z, t, args):
            row_draw, chance = args
            drawn, own = (process.clean(pred, z, t) for pred in preds)
            masks = process.mask_at(z, jnp.ones(z.shape, bool))
            back = onehot_log(masks, drawn.shape[-1], drawn.dtype)
            law = jnp.where(process.scored(z)[:, None], drawn, back)
            token = row_draw.outcome(law, chance, z)
            at = jnp.maximum(token, 0)[:, None]
            return token, jnp.exp(jnp.take_along_axis(own, at, 1)[:, 0])

        args = (row_draw, chance)
        token, written = net.rows_of_both(move, trunk, state.z, state.clock, args, where=moves)
        memory = state.memory
        if self.strength == "conf":
            memory = jnp.where(moves & hidden, written, memory)
        return state._replace(
            z=jnp.where(moves, token, state.z),
            h=trunk.latent,
            calls=state.calls + self.calls,
            memory=memory,
        )
