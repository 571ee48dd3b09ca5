"""Informed corrections with a hollow network (arXiv 2407.21243): which tokens are drawn anew."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import nearest, require
from ldd_jax.core.kl import entropy
from ldd_jax.core.registry import register
from ldd_jax.core.types import Array, Draw
from ldd_jax.processes.base import onehot_log
from ldd_jax.samplers.corrector import Corrector
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

SCORES = ("log_prob", "margin")
CHOICES = ("informed", "random", "entropy")


class Seen(NamedTuple):
    """Of every position [B, L]: a token drawn given all others, and the present one's score."""

    token: Array
    score: Array


@register("corrector", "informed")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InformedCorrector(Corrector):
    """Draw settled positions anew from p(z^i | the others), one call on the text as it stands.

    A hollow network predicts position i without looking at it, so that nothing is masked for the
    call, and a carried latent is kept. Which of the rules leave the law at the present time as it
    is (exactly for one position; several at once are drawn as if independent):
      random    positions chosen uniformly: yes.
      entropy   chosen uniformly, drawn anew with probability H(p) / log V: yes.
      informed  probability ~ exp(-score / temperature): no. It seeks modes: what it leaves behind
                is too typical, the more so the lower the temperature, and generated perplexity
                rewards that. With `accept` (Metropolis, one more call, one position): yes.

    Attributes:
      positions: how many are drawn anew at a time; where fewer are settled, all of them.
      choose: informed, random or entropy.
      score: log_prob, log p(z^i | others); margin, less the largest of another token.
      temperature: of the choice by score.
      accept: take the draw with probability min(1, q(i | z') / q(i | z)), q the choice.
    """

    positions: int = 1
    choose: str = "informed"
    score: str = "log_prob"
    temperature: float = 1.0
    accept: bool = False

    def __post_init__(self):
        if self.positions < 1:
            raise ValueError(f"positions is {self.positions}; it must be at least 1")
        if self.choose not in CHOICES:
            raise ValueError(f"choose {self.choose!r}: {nearest(self.choose, CHOICES)}")
        if self.score not in SCORES:
            raise ValueError(f"score {self.score!r}: {nearest(self.score, SCORES)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0 and finite")
        if self.accept and (self.choose != "informed" or self.positions > 1):
            raise ValueError("accept is for one position chosen by its score (choose=informed)")

    @property
    def calls(self) -> int:  # type: ignore[override]
        """Two with `accept`."""
        return 1 + self.accept

    def __call__(self, net, state, length, draw, segment) -> SampleState:
        """One correction."""
        del length
        require(
            net.denoiser.hollow,
            "corrector informed asks for p(z^i | the others) at tokens that the network sees; use "
            "a network that does not look at its own place (model hollow), or corrector gibbs",
        )
        settled = net.process.revealed(state.z) & state.free
        by_score = self.choose == "informed"
        flat = jnp.zeros(settled.shape, jnp.result_type(float))
        if not by_score:
            chosen = self._first(draw, flat, settled)
        trunk = net.trunk(state, segment)
        state = state._replace(h=trunk.latent)
        seen = self._seen(net, trunk, state, settled if by_score else chosen, draw.at(site=0))
        if by_score:
            chosen = self._first(draw, -seen.score / self.temperature, settled)
        z = jnp.where(chosen, seen.token, state.z)
        if self.accept:
            state, z = self._accepted(net, state, z, chosen, settled, seen.score, draw, segment)
        return state._replace(z=z, calls=state.calls + self.calls)

    def _first(self, draw: Draw, logit: Array, settled: Array) -> Array:
        place = draw.at(site=1).ranking(jnp.where(settled, logit, -jnp.inf))
        return settled & (place < self.positions)

    def _score(self, logp: Array, token: Array) -> Array:
        """How well a row's token fits the others, nats [N]."""
        here = jnp.take_along_axis(logp, token[:, None], 1)[:, 0]
        if self.score == "log_prob":
            return here
        others = jnp.where(jnp.arange(logp.shape[-1]) == token[:, None], -jnp.inf, logp)
        return here - jnp.max(others, -1)

    def _seen(self, net: Net, trunk, state: SampleState, where: Array, draw: Draw) -> Seen:
        """Candidates and scores of one call; the mask is shown to the read-out only."""
        process = net.process
        symbols = process.tokens.size - (process.tokens.mask is not None)

        def look(preds, z, t, args):
            row_draw, p, old = args
            drawn, own = (process.log_conditional(pred, z, t) for pred in preds)
            if self.choose == "entropy":
                p = p * entropy(own) / math.log(symbols)
            token = row_draw.outcome(drawn, p, old)
            token = jnp.where(row_draw.event(p), token, old)
            return Seen(token, self._score(own, old))

        hidden = process.mask_at(state.z, where)
        p = where.reshape(-1).astype(jnp.result_type(float))
        args = (draw.rows(state.z.shape[1]), p, state.z.reshape(-1))
        return net.rows_of_both(look, trunk, hidden, state.clock, args, where=where)

    def _accepted(self, net, state, z, chosen, settled, score, draw, segment):
        """Metropolis: the state after the second call, and the tokens that are kept."""

        def log_choice(score):
            logit = jnp.where(settled, -score / self.temperature, -jnp.inf)
            log_q = jax.nn.log_softmax(logit, axis=1)
            return jnp.sum(jnp.where(chosen, log_q, 0), axis=1)

        process = net.process
        trunk = net.trunk(state._replace(z=z), segment)
        look = lambda pred, z, t, old: self._score(process.log_conditional(pred, z, t), old)
        hidden = process.mask_at(z, settled)
        given = (trunk, hidden, state.clock, z.reshape(-1))
        again = net.plain.rows(look, *given, where=settled)
        p = jnp.exp(jnp.minimum(log_choice(again) - log_choice(score), 0))
        row = draw.at(site=2).rows(z.shape[1])
        p_N = jnp.where(chosen, p[:, None], 0).reshape(-1)
        old, new = state.z.reshape(-1), z.reshape(-1)
        law = onehot_log(new, process.tokens.size, p_N.dtype)
        kept = jnp.where(row.event(p_N), row.outcome(law, p_N, old), old).reshape(z.shape)
        return state._replace(h=trunk.latent), jnp.where(chosen, kept, state.z)
