"""What a network with its parameters may leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import struct

from ldd_jax.core.checks import UserError


class BoundNetwork:
    """Defaults of `core.types.Denoiser`: told no time, nothing carried, nothing cached.

    block: positions of a block, of a network whose blocks see those before and not after; 0 = none.
    timed: whether cond.clock changes what comes out. hollow: whether what comes out at a position
    depends on the others only, so that it predicts a token that it is shown. heads: projections for
    what is not tokens, by name. parts: maps tokens and
    latent to the two terms that enter the network, which `mechanism` compares; None = it does not
    say. lead: how many rows before a position predict it.
    """

    block = 0
    timed = False
    heads: ClassVar[Mapping[str, Any]] = {}
    hollow = False
    parts = None
    lead = 0

    def latent(self, batch: int, length: int) -> Any:
        """None: no latent."""
        del batch, length

    def cache(self, batch: int, length: int) -> Any:
        """Refused.

        Raises:
          UserError: always; no position leaves anything for those after it.
        """
        raise UserError(
            "this network keeps no cache; step next_token samples models trained with method=ar"
        )

    def around(self, batch: int, length: int) -> Any:
        """Refused.

        Raises:
          ValueError: always; it keeps no keys and values of a row.
        """
        del batch, length
        raise ValueError("this network keeps no keys and values of a row; dit, llama and gpt2 do")


@struct.dataclass
class Around(BoundNetwork):
    """A network asked in another way: what it is stays, `trunk` is that of the subclass."""

    inner: Any

    @property
    def head(self) -> Any:
        """Of the network."""
        return self.inner.head

    @property
    def heads(self) -> Any:
        """Of the network."""
        return self.inner.heads

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """As the network."""
        return self.inner.timed

    def latent(self, batch: int, length: int) -> Any:
        """Zeros for the network."""
        return self.inner.latent(batch, length)

    def few(self, rows: Any) -> Any:
        """Of some rows of a batch; a subclass that holds more of them overrides it.

        Args:
          rows: their numbers, [N].
        """
        return self.replace(inner=few(self.inner, rows))  # type: ignore[attr-defined]


def few(denoiser: Any, rows: Any) -> Any:
    """The network asked about some rows: its parameters are of no row, what is around them may be.

    Args:
      denoiser: any.
      rows: their numbers in the batch, [N].
    """
    return denoiser.few(rows) if isinstance(denoiser, Around) else denoiser
