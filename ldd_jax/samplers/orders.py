"""Which masked position comes first: statistics of the prediction, and ranks by them.

They are statistics of the network's own law: temperature and truncation act on the drawn token
alone. A law cut down to one token would say that all positions are certain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ldd_jax.core.checks import nearest
from ldd_jax.core.draws import ranks
from ldd_jax.core.kl import entropy
from ldd_jax.core.types import Array, Draw, Trunk
from ldd_jax.samplers.base import masked_and_free
from ldd_jax.samplers.dictation import Way
from ldd_jax.samplers.net import Net
from ldd_jax.samplers.state import SampleState

ORDERS = ("confidence", "entropy", "margin", "random", "sampled")


class Candidates(NamedTuple):
    """Of every masked position [B, L]: a drawn token, its cost, H in nats, and max p.

    cost: what comes first is least: H, -log max p, -(p1 - p2), 0, or -log p(drawn token).
    """

    token: Array
    cost: Array
    entropy: Array
    top: Array


def check_order(order: str) -> None:
    """Refuse an unknown order.

    Raises:
      ValueError: with those that exist.
    """
    if order not in ORDERS:
        raise ValueError(f"order {order!r}: {nearest(order, ORDERS)}")


def way(name: str, order: str, noise: float = 0.0) -> Way:
    """How a rule that reveals in `order` comes to a text: exactly where nothing is drawn for it.

    Noise on the order is chance that does not look at the network.

    Args:
      name: of the sampler, for the message.
      order: by which positions are revealed.
      noise: scale of the Gumbel noise on it.

    Raises:
      ValueError: for an order by tokens that are drawn and then thrown away.
    """
    if order == "sampled":
        raise ValueError(
            f"sampler {name}: its own likelihood is not known, as order=sampled ranks positions by "
            "tokens that are drawn and thrown away (use order=confidence)"
        )
    return Way(exact=order != "random" and noise == 0)


def cost_of(order: str, logp: Array, token: Array) -> Array:
    """What comes first is least, [N]; see `Candidates`.

    Args:
      order: one of `ORDERS`.
      logp: the network's own law, [N, V].
      token: that was drawn, [N].
    """
    if order == "entropy":
        return entropy(logp)
    if order == "confidence":
        return -jnp.max(logp, -1)
    if order == "margin":
        best = jnp.exp(jax.lax.top_k(logp, 2)[0])
        return best[:, 1] - best[:, 0]
    if order == "sampled":
        return -jnp.take_along_axis(logp, token[:, None], 1)[:, 0]
    return jnp.zeros(logp.shape[:1], logp.dtype)


def candidates(net: Net, trunk: Trunk, state: SampleState, draw: Draw, order: str) -> Candidates:
    """One sweep over the masked rows: each is projected once, and its token drawn at once.

    The token may be drawn before it is known which positions are revealed: a draw that is not used
    changes no law.

    Args:
      net: process and read-out.
      trunk: of the call at `state`.
      state: as the network saw it.
      draw: chance of the tokens.
      order: which cost is asked for.
    """
    wanted = masked_and_free(net, state)

    def look(preds, z, t, args):
        row_draw, wanted = args
        drawn, own = (net.process.clean(pred, z, t) for pred in preds)
        token = row_draw.outcome(drawn, wanted.astype(drawn.dtype), z)
        cost = cost_of(order, own, jnp.maximum(token, 0))
        return Candidates(token, cost, entropy(own), jnp.max(own, -1))

    args: Any = (draw.rows(state.z.shape[1]), wanted.reshape(-1))
    found = net.rows_of_both(look, trunk, state.z, state.clock, args, where=wanted)
    return found._replace(top=jnp.exp(found.top))


def rank(cost: Array, wanted: Array, draw: Draw, *, order: str, noise: Any = 0.0) -> Array:
    """Ranks [B, L], unwanted positions last.

    Random order, or `noise` > 0 (static or an array): positions are taken without replacement with
    probability ~ exp(-cost / noise), which is what adding Gumbel noise of that scale to the
    costs does (arXiv 2202.04200); otherwise by rising cost, ties by position. A NaN comes first, so
    that the loop is told of it.

    Args:
      cost: [B, L], low first.
      wanted: [B, L], True where a position may be taken.
      draw: chance of the order.
      order: "random" leaves the cost aside.
      noise: scale of the Gumbel noise, in units of the cost.
    """
    cost = jnp.where(jnp.isnan(cost), -jnp.inf, cost)
    if order == "random":
        return draw.ranking(jnp.where(wanted, jnp.zeros_like(cost), -jnp.inf))
    if isinstance(noise, float) and noise == 0:
        return ranks(jnp.where(wanted, cost, jnp.inf))
    return draw.ranking(jnp.where(wanted, -cost / noise, -jnp.inf))


def share_masked(net: Net, state: SampleState, total_B: Array) -> Array:
    """The time at which as many of `total_B` positions are expected to be masked, [B].

    Args:
      net: its process has the schedule.
      state: z, and which positions are free.
      total_B: positions that count as all of them.
    """
    count = jnp.sum(masked_and_free(net, state), axis=1)
    real = jnp.result_type(float)
    share = jnp.maximum(count, 1).astype(real) / jnp.maximum(total_B, 1).astype(real)
    return net.process.elapsed(jnp.minimum(share, net.process.schedule.noise(jnp.ones((), real))))
