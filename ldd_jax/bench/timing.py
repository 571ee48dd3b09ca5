"""Samples of a cell and how long they took: the set, a batch, and what a reader waits for first."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# Of a batch's first tokens, or as many as there are batches.
FIRSTS = 3
# Of what is not sampled by a network.
NONE: dict[str, Any] = dict.fromkeys(
    ("seconds", "tokens_per_s", "latency_s", "first_s", "row_tokens_per_s")
)


@dataclasses.dataclass(frozen=True)
class Timed:
    """A set of samples.

    Attributes:
      tokens: all rows that were made, [N, L]; the last batch is whole.
      calls: network passes of each, [N].
      batches: seconds of every batch.
      firsts: seconds until the first token or block of a batch was there, of some batches.
    """

    tokens: np.ndarray
    calls: np.ndarray
    batches: list[float]
    firsts: list[float]

    def record(self) -> dict[str, Any]:
        """Fields of a cell; a row is finished with its batch, and speeds are by the clock."""
        seconds, latency = sum(self.batches), statistics.median(self.batches)
        return {
            "seconds": seconds,
            "tokens_per_s": self.tokens.size / seconds,
            "latency_s": latency,
            "first_s": statistics.median(self.firsts),
            "row_tokens_per_s": self.tokens.shape[1] / latency,
        }


def draw(
    whole: Callable[[int], tuple[np.ndarray, np.ndarray]],
    begun: Callable[[int], Any] | None,
    count: int,
    size: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Samples in batches, each waited for.

    Args:
      whole: number of a batch's first sample to its tokens [size, L] and calls [size], on the host.
      begun: the same, of which nothing but what comes first is made; None = a row comes at once.
      count: samples that are wanted.
      size: of a batch.
      clock: seconds.
    """
    batches, firsts, found = [], [], []
    for first in range(0, count, size):
        began = clock()
        tokens, calls = whole(first)
        batches.append(clock() - began)
        found.append((tokens[:size], calls[:size]))
    if begun is not None:
        for first in range(0, count, size)[:FIRSTS]:
            began = clock()
            begun(first)
            firsts.append(clock() - began)
    tokens, calls = (np.concatenate(part) for part in zip(*found))
    return Timed(tokens, calls, batches, firsts or batches)
