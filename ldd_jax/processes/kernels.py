"""Kernels of one event: which states a token may go to, as rates."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np

from ldd_jax.core.checks import nearest
from ldd_jax.core.registry import register
from ldd_jax.processes.jumps import Jumps, MatrixJumps, UniformJumps

MOST_STATES = 2048  # of a matrix: log2(events) squares of it are constants of every program


@register("kernel", "uniform")
@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformKernel:
    """Any other state, all with the same rate: closed forms, no matrix, any vocabulary."""

    def jumps(self, size: int, gamma: float) -> Jumps:
        """Powers of K.

        Args:
          size: V, states.
          gamma: probability that an event changes nothing, in [0, 1).

        Raises:
          ValueError: where no number of events forgets the data.
        """
        return UniformJumps(size, gamma)


@register("kernel", "masked")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedKernel:
    """K = 1 / V, uniform with gamma = 1 / V: one event forgets the token, as a mask does.

    The bound is that of masked diffusion, but a count of two or more events is drawn to no use:
    `process: masked` trains with less noise. It is here to be compared with.
    """

    def jumps(self, size: int, gamma: float) -> Jumps:
        """See `UniformKernel`; gamma must be left at 0, it is 1 / V."""
        if gamma:
            raise ValueError(f"kernel masked has gamma 1 / V; leave gamma ({gamma}) at 0")
        return UniformJumps(size, 1 / size)


class MatrixKernel:
    """Kernels of a matrix of rates [V, V], `rates`; the diagonal does not count."""

    def rates(self, size: int) -> np.ndarray:
        """From row to column, not negative."""
        raise TypeError(f"{type(self).__name__} defines no rates")

    def jumps(self, size: int, gamma: float) -> Jumps:
        """See `UniformKernel`."""
        if size > MOST_STATES:
            name = self.registered[1]  # type: ignore[attr-defined]
            raise ValueError(
                f"kernel {name} keeps matrices of all states; {size} are more than {MOST_STATES} "
                "(use kernel uniform)"
            )
        return _matrix_jumps(self, size, gamma)


@cache
def _matrix_jumps(kernel: Any, size: int, gamma: float) -> MatrixJumps:
    return MatrixJumps(kernel.rates(size), gamma)


@register("kernel", "band")
@dataclasses.dataclass(frozen=True, kw_only=True)
class BandKernel(MatrixKernel):
    """To states whose number is near: for ordered ones, such as levels, pitches, places.

    Attributes:
      width: the farthest difference.
      wrap: whether the last state is next to the first.
      shape: of the rates over the difference d: flat, or gaussian, exp(-d^2 / (2 (width / 2)^2)).
    """

    width: int = 1
    wrap: bool = False
    shape: str = "flat"

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width is {self.width}; it must be at least 1")
        if self.shape not in ("flat", "gaussian"):
            raise ValueError(f"shape {self.shape!r}: {nearest(self.shape, ('flat', 'gaussian'))}")

    def rates(self, size: int) -> np.ndarray:
        """Symmetric."""
        place = np.arange(size)
        apart = np.abs(place[:, None] - place).astype(float)
        apart = np.minimum(apart, size - apart) if self.wrap else apart
        rate = np.exp(-2 * (apart / self.width) ** 2) if self.shape == "gaussian" else 1.0
        return np.where((apart > 0) & (apart <= self.width), rate, 0)


@register("kernel", "graph")
@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphKernel(MatrixKernel):
    """Any rates: a matrix that a config file has made.

    Attributes:
      matrix: rates from row to column, all states of the process; the diagonal does not count.
    """

    matrix: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self):
        for row in self.matrix:
            if len(row) != len(self.matrix) or not all(0 <= rate < np.inf for rate in row):
                raise ValueError("matrix must be square, of finite rates that are not negative")

    def rates(self, size: int) -> np.ndarray:
        """As given."""
        if len(self.matrix) != size:
            raise ValueError(f"matrix has {len(self.matrix)} states, the process {size}")
        return np.array(self.matrix)


@register("kernel", "neighbours")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighbourKernel(MatrixKernel):
    """To the nearest neighbours in an embedding, either's choice counting for both.

    Attributes:
      near: neighbours of every state; `nearest_neighbours` makes them.
      anywhere: the share of the rates that leads to any state, so that the graph is one piece.
    """

    near: tuple[tuple[int, ...], ...] = ()
    anywhere: float = 0.1

    def __post_init__(self):
        states = range(len(self.near))
        if not all(n in states for row in self.near for n in row):
            raise ValueError(f"near names states that are not in 0 .. {len(self.near) - 1}")
        if not 0 <= self.anywhere <= 1:
            raise ValueError(f"anywhere is {self.anywhere}; it must lie in [0, 1]")

    def rates(self, size: int) -> np.ndarray:
        """Symmetric; states beyond those of the embedding go anywhere only."""
        if len(self.near) > size:
            raise ValueError(f"near has {len(self.near)} states, the process {size}")
        rate = np.zeros((size, size))
        for state, row in enumerate(self.near):
            rate[state, list(row)] = 1 / max(len(row), 1)
        return (1 - self.anywhere) * (rate + rate.T) / 2 + self.anywhere / size


def nearest_neighbours(embedding_VD: np.ndarray, count: int) -> tuple[tuple[int, ...], ...]:
    """The states of largest cosine with each state, itself left out.

    Args:
      embedding_VD: a row for every state, such as the token table of a trained network.
      count: neighbours of a state.

    Raises:
      ValueError: unless 1 <= count < V.
    """
    rows = np.asarray(embedding_VD, np.float64)
    if not 1 <= count < len(rows):
        raise ValueError(f"{count} neighbours of {len(rows)} states; give 1 to {len(rows) - 1}")
    rows = rows - rows.mean(0)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    return tuple(tuple(map(int, sorted(row))) for row in order)
