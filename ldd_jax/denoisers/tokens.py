"""What networks of tokens share: a trunk and a linear head, how they begin, where they are cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldd_jax.core.types import Array, TokenSpace
from ldd_jax.denoisers import padding
from ldd_jax.denoisers.base import BoundNetwork
from ldd_jax.denoisers.transformer import LinearHead

Axes = tuple[str | None, ...]


@struct.dataclass
class BoundTokens(BoundNetwork):
    """A network with its parameters; a pytree whose leaves are those parameters."""

    params: Any
    config: Any = struct.field(pytree_node=False)

    @property
    def head(self) -> LinearHead:
        """The vocabulary projection."""
        return LinearHead(**self.params["head"], size=self.config.tokens.size)


class TokenModel:
    """`init`, `bind` and `axes` of a network of tokens, from what a subclass says of its own.

    bound: class of the network with its parameters. stack: modules whose parameters have their
    layer in front. cut: logical axes of a kernel, by the name of its module.
    """

    bound: ClassVar[Any]
    stack: ClassVar[str] = "blocks"
    cut: ClassVar[Mapping[str, Axes]] = {}

    width: int
    vocab_multiple: int
    tokens: TokenSpace

    @property
    def features(self) -> int:
        """Channels of what the head reads."""
        return self.width

    @property
    def table_rows(self) -> int:
        """Of the token table: the states, rounded up to a multiple of `vocab_multiple`."""
        return padding.rounded(self.tokens, self.vocab_multiple)

    def new_trunk(self, key: Array) -> Any:
        """Parameters of all but the head."""
        raise NotImplementedError

    def init(self, key: Array) -> Any:
        """{"trunk": ..., "head": {"kernel", "bias"}}; the head starts at zero."""
        rows = self.table_rows
        head = {"kernel": jnp.zeros((self.features, rows)), "bias": jnp.zeros(rows)}
        return {"trunk": self.new_trunk(key), "head": head}

    def bind(self, params: Any) -> Any:
        """The denoiser with these parameters."""
        return self.bound(params=params, config=self)

    def axes(self) -> Any:
        """Logical axes of every parameter; the leading axis of a stack is its layer."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return jax.tree_util.tree_map_with_path(self._named, shapes)

    def divides(self, names: list[str]) -> bool:
        """Whether a kernel that `cut` knows is cut at this place; else it is whole.

        Args:
          names: of the modules it is in, and its own.
        """
        del names
        return True

    def _named(self, path: Any, leaf: Any) -> Axes:
        """By the parameter's name: what `cut` does not know is whole."""
        names = [k.key for k in path]
        lead: Axes = ("layer",) if self.stack in names else ()
        if names[-1] == "table" and "embed" in names:
            return ("vocabulary", "width")
        if names[0] == "head":
            return ("width", "vocabulary") if names[-1] == "kernel" else ("vocabulary",)
        if names[-1] == "kernel" and names[-2] in self.cut and self.divides(names):
            return lead + self.cut[names[-2]]
        return lead + (None,) * (leaf.ndim - len(lead))
