"""Rows that come from several splits: what their counts are together."""

from __future__ import annotations

import dataclasses

from ldd_jax.data.packing import CorpusRows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joined:
    """Counts of several splits, as one.

    Attributes:
      parts: the splits.
    """

    parts: tuple[CorpusRows, ...]

    @property
    def documents(self) -> int:
        """Documents that the rows came from."""
        return sum(p.documents for p in self.parts)

    @property
    def token_count(self) -> int:
        """Their tokens."""
        return sum(p.token_count for p in self.parts)

    @property
    def dropped(self) -> int:
        """Tokens that filled no row."""
        return sum(p.dropped for p in self.parts)

    @property
    def unknown(self) -> int | None:
        """Those that stand for what the tokenizer does not know; None = nobody has counted."""
        counts = [p.unknown for p in self.parts]
        return None if None in counts else sum(c or 0 for c in counts)
