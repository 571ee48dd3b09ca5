"""Networks: a model of a config, the denoiser that its parameters make, its projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ldd_jax.core.types.values import Array, Cond, Trunk


class Head(Protocol):
    """A pytree; row-wise projection to the vocabulary."""

    def __call__(self, features_ND: Array) -> Array:
        """Return logits [N, V], at least float32."""
        ...


class Denoiser(Protocol):
    """A pytree whose leaves are the parameters."""

    head: Head

    @property
    def heads(self) -> Mapping[str, Head]:
        """Projections for what is not tokens, by name; most networks have none."""
        ...

    @property
    def timed(self) -> bool:
        """Whether cond.clock changes what comes out."""
        ...

    @property
    def hollow(self) -> bool:
        """Whether what comes out at a position is a function of the other positions only."""
        ...

    @property
    def block(self) -> int:
        """Positions of a block, of a network whose blocks see those before them only; 0 = none."""
        ...

    def trunk(
        self, z_BL: Any, cond: Cond, h: Any = None, *, key: Array | None = None, cache: Any = None
    ) -> Trunk:
        """Run the network without its vocabulary projection; h None = zeros.

        Args:
          z_BL: the state, tokens [B, L], or what else the network's input reads.
          cond: all that it is told beside them.
          h: latent of the pass before, in the structure of `latent`; None = zeros.
          key: a PRNG key per example, [B], for dropout; None = no dropout.
          cache: what positions before left behind, of `cache`; None = there are none.

        Returns:
          Features before the vocabulary projection, the new latent, the cache with these positions.

        Raises:
          ValueError: saying what this network has no input for, or what is missing.
        """
        ...

    def latent(self, batch: int, length: int) -> Any:
        """Zeros of the carried structure; None if the network takes no latent."""
        ...

    def cache(self, batch: int, length: int) -> Any:
        """An empty cache for `trunk`; refused by a network that is not causal."""
        ...


class Model(Protocol):
    """A registered config that makes parameters and binds them.

    latent: takes one; causal: a position sees itself and those before; time_conditioning: is told
    the time; num_classes: of labels, 0 = takes none; dropout: probability.
    """

    @property
    def latent(self) -> bool: ...  # noqa: D102
    @property
    def causal(self) -> bool: ...  # noqa: D102
    @property
    def time_conditioning(self) -> bool: ...  # noqa: D102
    @property
    def points(self) -> bool: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102
    @property
    def dropout(self) -> float: ...  # noqa: D102

    def init(self, key: Array) -> Any:
        """Parameters as a nested dict."""
        ...

    def axes(self) -> Any:
        """Logical axis names, one tuple for every parameter, in the same structure."""
        ...

    def bind(self, params: Any) -> Denoiser:
        """The denoiser with these parameters."""
        ...

    def operations(self, length: int) -> dict[str, float]:
        """Of one position of a row of `length`, forward: those of its `trunk` and of its `head`."""
        ...


Context = Callable[[Denoiser, Array, Cond, Array | None], Any]
