"""Tokenizers that need no library: UTF-8 bytes, and the characters of a corpus."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection

from ldd_jax.core.checks import require
from ldd_jax.core.registry import register
from ldd_jax.data import portable
from ldd_jax.data.tokenizers import Documents, Tokenizer, saved_as


@saved_as("bytes")
class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: id = byte; any text goes through unchanged."""

    def __init__(self, needs: Collection[str] = ()):
        super().__init__(256, needs=needs)

    def _encode(self, text, start):
        return list(text.encode("utf-8", "replace"))

    def _decode(self, ids, start):
        return bytes(ids).decode("utf-8", "replace")

    def _state(self):
        return {}

    def shared(self):
        """A tokenizer.json of bytes."""
        text = portable.of_signs(portable.byte_signs(), self.specials_by_name, bytewise=True)
        return {"tokenizer.json": text}

    @classmethod
    def _restore(cls, state, files, needs):
        return cls(needs)


@saved_as("characters")
class CharacterTokenizer(Tokenizer):
    """One id for each character of `alphabet`, then one for every unknown character.

    Args:
      alphabet: distinct characters, id = position.
      lowercase: encode the text in lower case.
      needs: special tokens wanted, appended after the unknown character.
    """

    UNKNOWN_TEXT = "\ufffd"

    def __init__(self, alphabet: str, lowercase: bool = False, needs: Collection[str] = ()):
        if not isinstance(alphabet, str) or len(set(alphabet)) != len(alphabet):
            raise ValueError("the alphabet must be a string of distinct characters")
        super().__init__(len(alphabet) + 1, needs=needs)
        self.alphabet, self.lowercase, self.unknown = alphabet, lowercase, len(alphabet)
        self._ids = {c: i for i, c in enumerate(alphabet)}

    def _encode(self, text, start):
        get, unknown = self._ids.get, self.unknown
        return [get(c, unknown) for c in (text.lower() if self.lowercase else text)]

    def _decode(self, ids, start):
        return "".join(self.UNKNOWN_TEXT if i == self.unknown else self.alphabet[i] for i in ids)

    def _state(self):
        return {"alphabet": self.alphabet, "lowercase": self.lowercase}

    def shared(self):
        """A tokenizer.json of characters; its lower case knows no final sigma."""
        text = portable.of_signs(
            self.alphabet, self.specials_by_name, unknown=self.unknown, lowercase=self.lowercase
        )
        return {"tokenizer.json": text}

    @classmethod
    def _restore(cls, state, files, needs):
        return cls(state["alphabet"], state["lowercase"], needs)


@register("tokenizer", "bytes")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes:
    """UTF-8 bytes, 256 ids; needs no fitting."""

    def most_ids(self, needs: Collection[str]) -> int:
        """Ids, exactly."""
        return self.fit(lambda: (), needs).size

    def fit(self, documents: Documents, needs: Collection[str] = ("eos", "pad")) -> Tokenizer:
        """The tokenizer; `documents` is not read."""
        return ByteTokenizer(needs)


@register("tokenizer", "characters")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Characters:
    """The characters of the training documents, most frequent first.

    Attributes:
      max_size: at most this many characters are kept; rarer ones become the unknown character.
      lowercase: fold the text to lower case.
    """

    max_size: int = 256
    lowercase: bool = False

    def __post_init__(self):
        if self.max_size < 1:
            raise ValueError(f"max_size={self.max_size}; it must be at least 1")

    def most_ids(self, needs: Collection[str]) -> int:
        """Ids at most: the documents may have fewer characters."""
        return self.max_size + 1 + len(needs)

    def fit(self, documents: Documents, needs: Collection[str] = ("eos", "pad")) -> Tokenizer:
        """Count the characters of the documents; ties are broken by code point."""
        counts: collections.Counter[str] = collections.Counter()
        for text in documents():
            counts.update(text.lower() if self.lowercase else text)
        require(bool(counts), "cannot choose an alphabet: the training documents hold no text")
        ranked = sorted(counts, key=lambda c: (-counts[c], c))
        return CharacterTokenizer("".join(ranked[: self.max_size]), self.lowercase, needs)
