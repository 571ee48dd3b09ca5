"""A DiT with its parameters: what it refuses, its latent and its caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers.caches import Around, Cache, around
from ldd_jax.denoisers.inputs import by_digit, by_token
from ldd_jax.denoisers.tokens import BoundTokens
from ldd_jax.denoisers.transformer import Network

if TYPE_CHECKING:
    from ldd_jax.denoisers.dit import DiT


@struct.dataclass
class BoundDiT(BoundTokens):
    """A DiT with its parameters; a pytree whose leaves are those parameters."""

    config: DiT = struct.field(pytree_node=False)

    @property
    def timed(self) -> bool:  # type: ignore[override]
        """Whether the network is told the time."""
        return self.config.time_conditioning

    @property
    def block(self) -> int:  # type: ignore[override]
        """Positions of a block."""
        return self.config.block

    def trunk(
        self, z: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """See `Denoiser.trunk`; `key` holds a key per example, [B]."""
        config = self.config
        z, cond = config.shown(z, cond)
        if cond.attend is not None:
            cond.attend.check()
        if h is not None and not config.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if cond.label is not None and not config.num_classes:
            raise ValueError("this network takes no class label (model.num_classes is 0)")
        if cond.unit is not None or cond.told is not None:
            raise ValueError("this network has no patches (model: blt has); no unit, no told")
        if config.time_conditioning and cond.clock is None:
            raise ValueError("this network is conditioned on time; cond.clock is missing")
        if cond.chance is not None and config.loops == 1:
            raise ValueError("this network has no loops to draw (model.loops is 1)")
        if cache is not None:
            cache.check(config.causal or config.block > 0)
            if cond.segment is not None or cond.attend is not None:
                raise ValueError(
                    "a cache holds one document, read from left to right; cond.segment and "
                    "cond.attend do not apply"
                )
            if cond.position is None:
                cond = cond._replace(position=cache.begin + jnp.arange(z.shape[1]))
        digits = config.tokens.digits
        if digits > 1:
            z, cond, h = by_digit(z, cond, h, digits)
        out: Any = Network(config).apply({"params": self.params["trunk"]}, z, cond, h, key, cache)
        if config.latent:
            out = out._replace(latent=config.carry.made(self, out))
        return out if digits == 1 else by_token(out, digits)

    def parts(self, z: Array, h: Array) -> tuple[Array, Array]:  # type: ignore[override]
        """E(z) and LayerNorm(h), whose sum enters the first block; float32 [B, L, D] both."""
        out: Any = Network(self.config).apply(
            {"params": self.params["trunk"]}, z, h, method=Network.parts
        )
        return out

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `length` positions of a network that looks back only."""
        config = self.config
        if not (config.causal or config.block):
            raise UserError(
                "a bidirectional network keeps no cache (model.causal is False); step next_token "
                "samples models trained with method=ar"
            )
        return self._empty(batch, length)

    def _empty(self, batch: int, length: int) -> Cache:
        config = self.config
        heads = config.heads, config.width // config.heads
        return Cache.empty(config.depth, batch, length, *heads, config.dtype)

    def around(self, batch: int, length: int) -> Around:
        """An empty cache of a row that is seen both ways.

        Raises:
          ValueError: for a network that keeps none of that kind.
        """
        config = self.config
        if config.loops > 1 or config.tokens.digits > 1:
            raise ValueError("a network with loops, or of digits, keeps no cache of a row")
        kept = around(self._empty(batch, length))
        kept.check(config.causal or config.block > 0)
        return kept

    def latent(self, batch: int, length: int) -> Array | None:
        """Zeros [B, L, K], of m digits [B, L, m, K], or None."""
        if not self.config.latent:
            return None
        m = self.config.tokens.digits
        shape = (batch, length, *((m,) if m > 1 else ()), self.config.latent_size)
        return jnp.zeros(shape, self.config.latent_type)
