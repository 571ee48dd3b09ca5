"""What data load: rows to train and to validate on, and what is said of them."""

from __future__ import annotations

import dataclasses

from ldd_jax.core.checks import nearest, require
from ldd_jax.data import unknown
from ldd_jax.data.packing import CorpusRows, Layout
from ldd_jax.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows to train and to validate on, and the tokenizer that made them.

    A row is a dict: tokens int32 [L], keep bool [L] (never corrupted), weight float32 [L] (share
    in the loss), and segment int32 [L] (0 = padding) where the layout uses segments.

    Attributes:
      tokenizer: text to ids; the mask is not among them.
      train: rows, by number.
      validation: likewise.
      layout: how the rows were made.
      fingerprint: sixteen hex digits of the documents' SHA-256.
      source: the path they came from.
      note: where the validation documents come from, in words.
      classes: names of the labels that rows carry; () = they carry none.
      channels: of the signal that rows carry, [L, C]; 0 = they carry none.
    """

    tokenizer: Tokenizer
    train: CorpusRows
    validation: CorpusRows
    layout: Layout
    fingerprint: str
    source: str
    note: str
    classes: tuple[str, ...] = ()
    channels: int = 0

    def __post_init__(self):
        for name in self._splits():
            unknown.refuse(self.unknown_share(name), self.tokenizer, self._named(name))

    def rows(self, split: str) -> CorpusRows:
        """The rows of "train" or "validation"."""
        splits = {"train": self.train, "validation": self.validation}
        require(split in splits, f"split {split!r}; {nearest(split, splits)}")
        return splits[split]

    def unigram_entropy(self, split: str = "validation") -> float:
        """Entropy of the split's own token frequencies, nats per scored token.

        The loss of the best model that ignores all context: a trained one must be below it.
        """
        return self.rows(split).entropy

    def unknown_share(self, split: str = "validation") -> float | None:
        """Share of the split's tokens that the tokenizer does not know; None = nobody counted."""
        rows = self.rows(split)
        return None if rows.unknown is None else unknown.share(rows.unknown, rows.token_count)

    def _splits(self) -> tuple[str, ...]:
        """Those that differ."""
        return ("train",) if self.train is self.validation else ("train", "validation")

    def _named(self, split: str) -> str:
        return self.source if len(self._splits()) == 1 else f"the {split} split of {self.source}"

    def warnings(self) -> list[str]:
        """What there is to say of symbols that the tokenizer does not know."""
        said = (
            unknown.warning(self.unknown_share(name), self.tokenizer, self._named(name))
            for name in self._splits()
        )
        return list(filter(None, said))

    def describe(self) -> str:
        """Two lines: source, fingerprint and tokenizer; documents, tokens and rows per split.

        Warnings, if there are any, follow.
        """
        names = self._splits()
        parts = [
            f"{name if len(names) > 1 else 'all'}: {r.documents:,} documents, {r.token_count:,} "
            f"tokens ({unknown.told(self.unknown_share(name))}), {len(r):,} rows"
            + (f" ({r.dropped:,} tokens left over)" if r.dropped else "")
            for name, r in ((name, self.rows(name)) for name in names)
        ]
        return (
            f"corpus {self.source} ({self.fingerprint}), {self.tokenizer.kind} tokenizer, "
            f"{self.tokenizer.size} ids, {self.layout.mode} rows of {self.layout.length}; "
            f"{self.note}\n" + "\n".join(["; ".join(parts), *self.warnings()])
        )
