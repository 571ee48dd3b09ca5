"""A pretrained decoder with its parameters: shifted predictions, a start before the row, caches."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import Array, Cond, Trunk
from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.denoisers.caches import Around, Cache, around
from ldd_jax.denoisers.decoder_network import Network
from ldd_jax.denoisers.linears import Projection

if TYPE_CHECKING:
    from ldd_jax.denoisers.decoder import Decoder


@struct.dataclass
class BoundDecoder(BoundNetwork):
    """A decoder with its parameters.

    With a shift, row i of the network predicts position i + 1, and features and latent come out at
    the position that they predict; the latent enters the row that shows that position's token.
    """

    params: Any
    config: Decoder = struct.field(pytree_node=False)

    @property
    def head(self) -> Projection:
        """The vocabulary projection."""
        size = self.config.tokens.size
        if self.config.tied:
            return Projection(self.params["trunk"]["embed"]["table"].T, size)
        return Projection(self.params["head"]["kernel"], size)

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
        """See `Denoiser.trunk`; there is no dropout."""
        del key
        config = self.config
        self._check(cond, h, cache)
        if cache is not None:
            place = cache.begin + jnp.arange(z.shape[1])
            return self._left(self._run(z, cond._replace(position=place), h, cache))
        segment = cond.segment
        if config.shift == "start":
            z, cond, h = self._with_start(z, cond, h)
        if cond.position is None:
            config.check_length(z.shape[1])
        out = self._run(z, cond, h)
        if config.shift == "none":
            return self._left(out)
        move = lambda a: _moved(a, segment, config.shift == "start")
        return self._left(Trunk(*jax.tree.map(move, (out.features, out.latent))))

    def _left(self, out: Trunk) -> Trunk:
        """With what the next call gets, at the positions that are predicted."""
        config = self.config
        return out._replace(latent=config.carry.made(self, out)) if config.latent else out

    @property
    def _caches(self) -> bool:
        config = self.config
        return (config.causal or config.block > 0) and config.shift == "none"

    def _run(self, *given: Any) -> Trunk:
        out: Any = Network(self.config).apply({"params": self.params["trunk"]}, *given)
        return out

    def _check(self, cond: Cond, h: Any, cache: Any) -> None:
        config = self.config
        if cond.attend is not None:
            cond.attend.check()
        if h is not None and not config.latent:
            raise ValueError("this network takes no latent (model.latent is False)")
        if cond.label is not None:
            raise ValueError("this network takes no class label")
        if cond.signal is not None:
            raise ValueError("this network takes no signal (model=signal_dit does)")
        if cond.unit is not None or cond.told is not None:
            raise ValueError("this network has no patches (model: blt has); no unit, no told")
        if config.time_conditioning and cond.clock is None:
            raise ValueError("this network is conditioned on time; cond.clock is missing")
        if cache is not None and (cond.segment is not None or cond.attend is not None):
            raise ValueError(
                "a cache holds one document, read from left to right; cond.segment and "
                "cond.attend do not apply"
            )
        if cond.attend is not None and cond.attend.size and config.shift == "start":
            raise ValueError("blocks of a known size have no place for a start (model.shift)")
        if cache is not None:
            cache.check(self._caches)

    def _with_start(self, z: Array, cond: Cond, h: Any) -> tuple[Array, Cond, Any]:
        """Rows with the start before them; it belongs to the first document and has no latent."""
        begin = self.config.begin if self.config.begin >= 0 else self.config.tokens.mask
        first = lambda a, value: jnp.pad(
            a, [(0, 0), (1, 0)] + [(0, 0)] * (a.ndim - 2), constant_values=value
        )
        before = lambda a: jnp.concatenate([a[:, :1], a], axis=1)
        z, h = first(z, begin), None if h is None else first(h, 0)
        if cond.segment is not None:
            cond = cond._replace(segment=before(cond.segment))
        if cond.position is not None:
            place = jnp.broadcast_to(cond.position, (z.shape[0], z.shape[1] - 1))
            cond = cond._replace(position=first(place + 1, 0))
        if cond.clock is not None and cond.clock.ndim == 2:
            cond = cond._replace(clock=before(cond.clock))
        attend = cond.attend
        if attend is not None and attend.unit is not None:
            cond = cond._replace(attend=dataclasses.replace(attend, unit=before(attend.unit)))
        if attend is not None and attend.mask is not None:  # the start sees what the first sees
            mask = attend.mask
            mask = jnp.concatenate([mask[..., :1, :], mask], axis=-2)
            mask = jnp.concatenate([jnp.ones_like(mask[..., :1]), mask], axis=-1)
            cond = cond._replace(attend=dataclasses.replace(attend, mask=mask))
        return z, cond, h

    def parts(self, z: Array, h: Array) -> tuple[Array, Array]:  # type: ignore[override]
        """E(z) and what is carried, whose sum enters the first block; float32 [B, L, D] both."""
        out: Any = Network(self.config).apply(
            {"params": self.params["trunk"]}, z, h, method=Network.parts
        )
        return out

    def latent(self, batch: int, length: int) -> Array | None:
        """Zeros [B, L, K], or None."""
        config = self.config
        if not config.latent:
            return None
        return jnp.zeros((batch, length, config.latent_size), config.latent_type)

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `length` positions of a network that looks back only."""
        if not self._caches:
            raise UserError(
                "a bidirectional network keeps no cache (model.causal is False); step next_token "
                "samples models trained with method=ar"
            )
        return self._empty(batch, length)

    def _empty(self, batch: int, length: int) -> Cache:
        config = self.config
        config.check_length(length)
        return Cache.empty(config.depth, batch, length, *config.key_heads, config.dtype)

    @property
    def lead(self) -> int:
        """Rows before a position that predict it."""
        return 1 if self.config.shift == "repeat" else 0

    def around(self, batch: int, length: int) -> Around:
        """An empty cache of a row that is seen both ways.

        Raises:
          ValueError: for a network that keeps none of that kind.
        """
        if self.config.shift == "start":
            raise ValueError("a network with a start before the row (model.shift) keeps no cache")
        kept = around(self._empty(batch, length))
        kept.check(self.config.causal or self.config.block > 0)
        return kept


def _moved(a: Array, segment: Array | None, start: bool) -> Array:
    """Rows at the position that they predict, [B, L, ...].

    Position 0 is predicted by the start; without one, and at the first position of every further
    document, by its own row, as Dream does at position 0.

    Args:
      a: rows of the network, [B, L, ...], or [B, L + 1, ...] with a start.
      segment: documents [B, L]; None = one.
      start: whether a start stands before them.
    """
    own = a[:, 1:] if start else a
    before = a[:, :-1] if start else jnp.concatenate([a[:, :1], a[:, :-1]], axis=1)
    if segment is None:
        return before
    begins = jnp.pad(segment[:, 1:] != segment[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(begins[..., None], own, before)
