"""Rows of text with something beside each."""

from __future__ import annotations

import dataclasses

from ldd_jax.data.packing import CorpusRows


@dataclasses.dataclass(frozen=True)
class Beside:
    """What rows of text count, whatever stands beside them.

    Attributes:
      rows: of the text.
    """

    rows: CorpusRows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def documents(self) -> int:
        """Documents that the rows came from."""
        return self.rows.documents

    @property
    def token_count(self) -> int:
        """Their tokens."""
        return self.rows.token_count

    @property
    def dropped(self) -> int:
        """Tokens that filled no row."""
        return self.rows.dropped

    @property
    def unknown(self) -> int | None:
        """Those that stand for what the tokenizer does not know."""
        return self.rows.unknown

    @property
    def entropy(self) -> float:
        """Entropy of the scored tokens' own distribution, nats a token."""
        return self.rows.entropy
