"""Any text with the shape of its characters beside it."""

from __future__ import annotations

import dataclasses
import unicodedata

import numpy as np

from ldd_jax.core.registry import register
from ldd_jax.data.beside import Beside
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer

SHAPES = ("vowel", "consonant", "capital", "digit", "space", "other")


def shape(text: str) -> tuple[float, ...]:
    """Features `SHAPES` of a token's text, shares of its characters, 0 or 1 for one character."""
    found = np.zeros(len(SHAPES))
    for character in text:
        plain = unicodedata.normalize("NFD", character)[0].lower()
        kinds = (
            plain in "aeiou",
            character.isalpha() and plain not in "aeiou",
            character.isupper(),
            character.isdigit(),
            character.isspace(),
        )
        found += (*kinds, not any(kinds))
    return tuple(found / max(len(text), 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapedRows(Beside):
    """Rows of text with the features of their tokens, row by row.

    Attributes:
      table: features of every id, [size, C].
    """

    table: np.ndarray

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.rows[index]
        return row | {"signal": self.table[row["tokens"]]}


@register("data", "shapes")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapeData(TextData):
    """Text with the shape of every character beside it: vowel, consonant, capital, digit, space.

    A pair of modalities that any text gives: the words' pattern leaves open which letters it has.
    """

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """As of a text, with six channels."""
        return self._shaped(super().load(tokenizer, verify=verify))

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """As of a text, with six channels."""
        corpus = super().whole(tokenizer)
        return corpus if corpus.channels else self._shaped(corpus)  # `load` has done it

    def _shaped(self, corpus: Corpus) -> Corpus:
        tokenizer = corpus.tokenizer
        text = [tokenizer.decode([i]) for i in range(tokenizer.size)]
        table = np.asarray([shape(t) for t in text], np.float32)
        train = ShapedRows(rows=corpus.train, table=table)
        alone = corpus.train is corpus.validation
        held = train if alone else ShapedRows(rows=corpus.validation, table=table)
        return dataclasses.replace(corpus, train=train, validation=held, channels=len(SHAPES))
