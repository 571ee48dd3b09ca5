"""What a network with its parameters may leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ldd_jax.core.checks import UserError


class BoundNetwork:
    """Defaults of `core.types.Denoiser`: told no time, nothing carried, nothing cached.

    timed: whether cond.clock changes what comes out. hollow: whether what comes out at a position
    depends on the others only, so that it predicts a token that it is shown. heads: projections for
    what is not tokens, by name. parts: maps tokens and
    latent to the two terms that enter the network, which `mechanism` compares; None = it does not
    say.
    """

    timed = False
    heads: ClassVar[Mapping[str, Any]] = {}
    hollow = False
    parts = None

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
