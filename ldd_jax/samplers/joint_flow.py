"""Discrete flow matching, alone or while a signal moves beside it (arXiv 2402.04997)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw, Process, Trunk
from ldd_jax.processes.base import onehot_log
from ldd_jax.samplers.base import Step
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.orders import rank
from ldd_jax.samplers.state import SampleState


@register("step", "joint_flow")
@dataclasses.dataclass(frozen=True, kw_only=True)
class JointFlow(Step):
    """Euler's step of all parts by one network call: tokens by their rates, points by velocity.

    A mask opens with chance (t - s) (weight + eta tau / (1 - tau)), tau = 1 - t for a log-linear
    schedule, a token is masked again with chance (t - s) eta; both are clipped to 1, and the last
    step takes nothing back. On masked tokens alone with eta = 0 and that schedule it is the
    ancestral rule. Each part moves by its own clock: one that is held stands.

    Attributes:
      eta: tokens taken back per unit of time; the marginals of an exact network do not depend on
        it, its errors are mended by it.
      purity: the masks that open are those of the surest prediction, as many as would open by
        chance; a token that has just been revealed may be taken back at once.
    """

    trees = True
    processes = "masked, joint"
    no_way = "it may take tokens back, and shares its call with what is no text"
    eta: float = 0.0
    purity: bool = False

    def __post_init__(self):
        if not self.eta >= 0:
            raise ValueError(f"eta is {self.eta}; it must be 0 (nothing is taken back) or more")

    def check(self, process: Process, *, latent: bool, timed: bool) -> None:
        """Tokens of a masked process."""
        super().check(process, latent=latent, timed=timed)
        if not process.words.absorbing:
            raise ValueError(
                "sampler joint_flow reveals masks; "
                f"process {process.registered[1]} has none (use ancestral)"  # type: ignore[attr-defined]
            )

    def __call__(
        self,
        net: Net,
        state: SampleState,
        s: Any,
        draw: Draw,
        segment: Array | None,
    ) -> SampleState:
        """One step."""
        process, words = net.process, net.process.words
        shape = positions.shape(state.z)
        trunk = net.trunk(state, segment)
        masked = words.scored(process.of_tokens(state.z)) & state.free
        reveal, back = self._chances(net, process.of_tokens(state.clock), process.of_tokens(s))
        if self.purity:
            masks, taken = self._surest(net, trunk, state, masked, reveal, draw.at(site=1)), back
        else:
            masks, taken = masked * reveal[:, None], jnp.zeros_like(back)
        chance = jnp.where(masked, masks, back[:, None]).reshape(-1)
        s_N, taken_N = (positions.of_rows(a, shape[1]) for a in (s, taken))
        row_draw = draw.rows(shape[1])
        moves = row_draw.event(chance).reshape(shape) & state.free

        def move(pred, z, t, args):
            row_draw, chance, taken, s = args
            token, known = process.of_tokens(z), process.clean(pred, z, t)
            mask = words.mask_at(token, jnp.ones(token.shape, bool))
            lost = onehot_log(mask, known.shape[-1], known.dtype)
            stay, go = jnp.log1p(-taken)[:, None], jnp.log(taken)[:, None]
            opened = jnp.logaddexp(stay + known, go + lost)
            law = jnp.where(words.scored(token)[:, None], opened, lost)
            return row_draw.outcome(law, chance, token), process.drift(pred, z, t, s)

        args = (row_draw, chance, taken_N, s_N)
        token, moved = net.rows(move, trunk, state.z, state.clock, args)
        token = jnp.where(moves, token, process.of_tokens(state.z))
        z = process.with_tokens(positions.where(state.free, moved, state.z), token)
        return state._replace(z=z, h=trunk.latent, calls=state.calls + self.calls)

    def _chances(self, net: Net, t: Array, s: Array) -> tuple[Array, Array]:
        """That a mask opens, and that a token is masked again, [B] each."""
        words: Any = net.process.words
        given = t > 0  # a text that is held has no masks, and its rates at 0 are infinite
        rates = words.flow_rates(jnp.where(given, t, 1), self.eta)
        reveal, back = (jnp.where(given, jnp.clip((t - s) * rate, 0, 1), 0) for rate in rates)
        last = (words.schedule.noise(s) == 0) | (net.number + 1 == net.steps)
        return reveal, jnp.where(last, 0, back)

    def _surest(
        self,
        net: Net,
        trunk: Trunk,
        state: SampleState,
        masked: Array,
        reveal: Array,
        draw: Draw,
    ) -> Array:
        """1 at the masks that open, 0 at the others, [B, L].

        How many is a number of coins, one for each mask, drawn as the first two letters.
        """
        process = net.process

        def look(preds, z, t, args):
            row_draw, p = args
            own = process.clean(preds[1], z, t)
            letter = jnp.arange(own.shape[-1])
            coin = jnp.where(letter == 1, jnp.log(p)[:, None], -jnp.inf)
            coin = jnp.where(letter == 0, jnp.log1p(-p)[:, None], coin)
            return row_draw.categorical(coin) == 1, jnp.max(own, axis=-1)

        length = masked.shape[1]
        chance = (masked * reveal[:, None]).reshape(-1)
        args = (draw.rows(length), chance)
        heads, top = net.rows_of_both(look, trunk, state.z, state.clock, args, where=masked)
        count = jnp.sum(heads & masked, axis=1, keepdims=True)
        place = rank(-top, masked, draw, order="confidence")
        return (masked & (place < count)).astype(reveal.dtype)
