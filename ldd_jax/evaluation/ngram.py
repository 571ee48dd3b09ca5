"""An interpolated Kneser-Ney n-gram model: a judge that needs no training run."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldd_jax.core.checks import require

# A gram is one integer in base V, so that counting is sorting: V^order must stay below this.
_LARGEST = 2**62


@dataclasses.dataclass(frozen=True)
class _Table:
    """Grams of one order: sorted keys and counts; the same summed by context, and its types."""

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    types: np.ndarray
    discount: float

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, size: int) -> _Table:
        contexts, where, types = np.unique(keys // size, return_inverse=True, return_counts=True)
        totals = np.bincount(where, weights=counts, minlength=len(contexts))
        once, twice = (int((counts == n).sum()) for n in (1, 2))
        # Ney's estimate; kept away from 0 and 1, where nothing or everything would be backed off.
        discount = once / (once + 2 * twice) if once + twice else 0.5
        return cls(keys, counts, contexts, totals, types, min(max(discount, 0.05), 0.95))

    def look_up(self, keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count of each gram, total and types of its context; 0 where it never occurred."""
        count = _find(self.keys, self.counts, keys)
        context = keys // size
        total = _find(self.contexts, self.totals, context)
        return count, total, _find(self.contexts, self.types, context)


def _find(known: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if not len(known):
        return np.zeros(len(wanted))
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, values[at], 0).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class NGram:
    """p_k(w | c) = max(n(c w) - d_k, 0) / n(c) + d_k N(c) / n(c) * p_{k-1}(w | c less its first).

    n are counts at the highest order and numbers of different left neighbours below (Kneser and
    Ney, 1995, interpolated as in Chen and Goodman, 1999), N(c) the number of different
    continuations, p_0 = 1 / V, so that every token has a positive probability and they sum to 1.
    The first tokens of a row have shorter contexts.
    """

    size: int
    tables: tuple[_Table, ...]

    @property
    def order(self) -> int:
        """Longest gram."""
        return len(self.tables)

    @classmethod
    def fit(cls, rows: np.ndarray, size: int, order: int = 6) -> NGram:
        """Count the grams of rows.

        The order is lowered to the row's length, and to what 62 bits hold (6 for 1,300 ids, 3 for
        a million).

        Args:
          rows: ids, [N, L].
          size: number of ids.
          order: of the longest grams.

        Raises:
          UserError: for ids out of range or an order below 1.
        """
        rows = np.asarray(rows, np.int64)
        require(order >= 1, f"n-gram order is {order}; it must be at least 1")
        require(rows.size > 0, "an n-gram model needs text; the split is empty")
        require(
            rows.min() >= 0 and rows.max() < size,
            f"ids from {rows.min()} to {rows.max()}, but the vocabulary has {size}",
        )
        while order > 1 and (order > rows.shape[1] or size**order >= _LARGEST):
            order -= 1
        tables: list[_Table] = []
        above: np.ndarray | None = None
        for k in range(order, 0, -1):
            if above is None:
                grams = _keys(rows, k, size).reshape(-1)
            else:
                grams = above % size**k  # each different gram of the order above, less its first
            above, counts = np.unique(grams, return_counts=True)
            tables.append(_Table.of(above, counts, size))
        return cls(size, tuple(reversed(tables)))

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        """p(token | those before) for every token of a row."""
        row = np.asarray(row, np.int64)
        require(
            len(row) == 0 or (row.min() >= 0 and row.max() < self.size),
            f"ids up to {row.max(initial=0)}, but the n-gram model knows {self.size}",
        )
        p = np.full(len(row), 1 / self.size)
        for k, table in enumerate(self.tables, 1):
            if len(row) < k:
                break
            count, total, types = table.look_up(_keys(row[None], k, self.size)[0], self.size)
            d, safe = table.discount, np.maximum(total, 1)
            finer = np.maximum(count - d, 0) / safe + d * types / safe * p[k - 1 :]
            p[k - 1 :] = np.where(total > 0, finer, p[k - 1 :])
        return p


def _keys(rows: np.ndarray, k: int, size: int) -> np.ndarray:
    """Grams of order k of every row as integers, [N, L - k + 1]."""
    width = rows.shape[1] - k + 1
    out = np.zeros((rows.shape[0], width), np.int64)
    for j in range(k):
        out = out * size + rows[:, j : j + width]
    return out
