"""A text dictated to a sampler: its rule chooses the positions, the tokens are given and priced.

A network in `Net` predicts; a rule draws from what is predicted. Where a text is dictated the rule
draws from the prediction that knows the text instead, and beside the token stands its price, log q
of what was drawn minus log p of the same under the network. So the production rule itself runs,
with its grid, clock, order and latent; nothing of it is written a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ldd_jax.core import positions
from ldd_jax.core.types import Array, Process

# (process, prediction [N, V], z [N], t [N], s [N] or None) -> log-law of the next state [N, V].
Law = Callable[[Process, Array, Array, Array, Any], Array]


class Way(NamedTuple):
    """How a rule comes to a given text.

    law: of a row's next state given a prediction, where each row is drawn from it on its own; None:
    the rule says which masked positions it reveals, as a function of what came before and of chance
    that does not look at the network, and they take tokens from p(x0 | z).
    exact: no chance is left, the text determines its path.
    """

    law: Law | None = None
    exact: bool = False


def at(law_NV: Array, token_N: Array) -> Array:
    """Of every row its token's value, [N]."""
    return jnp.take_along_axis(law_NV, token_N[:, None].astype(jnp.int32), -1)[:, 0]


@dataclasses.dataclass(frozen=True)
class Dictation:
    """A text [B, L] for one application of a rule to time s; `book` gets the prices, nats [B, L].

    Not a pytree: it lives within one trace.
    """

    text: Array
    way: Way
    s: Any
    book: list[Array]

    def rows(self, net: Any, fn: Callable, args: Any, where: Array | None, walk: Callable) -> Any:
        """`Net.rows_of_both` with the text's prediction to draw from.

        Args:
          net: the network that prices.
          fn: of the rule, ((prediction to draw from, the network's own), z, t, args) -> output.
          args: the rule's, by row.
          where: rows that are wanted, [B, L].
          walk: (fn, args) -> fn over the rows, as `rows_of_both` walks them.

        Returns:
          The rule's output.
        """
        length = self.text.shape[1]

        def told(preds, z, t, inner):
            args, x, s = inner
            drawn, own = preds
            known = net.process.one_hot_prediction(x, z, t).astype(drawn.dtype)
            if drawn.ndim > known.ndim:  # a pair of predictions, guided
                known = jnp.broadcast_to(known[:, None], drawn.shape)
            out = fn((known, own), z, t, args)
            return out, self._price(net.process, known, drawn, (z, t, s), x, out)

        more = (args, positions.flat(self.text), positions.of_rows(self.s, length))
        out, price = walk(told, more)
        on = jnp.ones(self.text.shape, bool) if where is None else where
        self.book.append(jnp.where(on, price, 0))
        return out

    def _price(self, process, known, drawn, place, x, out) -> Array:
        """Of every row, log q - log p of what was drawn.

        It has the mean of KL(q || p) and varies less from path to path: every token is priced once,
        whatever the times (uniform, trained, 16 steps: 4.2 against 23 nats a row of 64).
        """
        z, t, s = place
        if self.way.law is None:
            return -at(process.clean(drawn, z, t), x)
        q, p = (self.way.law(process, pred, z, t, s) for pred in (known, drawn))
        return at(q, out) - at(p, out)
