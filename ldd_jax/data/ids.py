"""Token ids as they are: text is whole numbers between spaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from ldd_jax.core.checks import UserError, require
from ldd_jax.core.registry import register
from ldd_jax.data.tokenizers import Documents, Tokenizer, saved_as


@saved_as("ids")
class IdTokenizer(Tokenizer):
    """`size` ids, written as "12 5 88": for checkpoints without a tokenizer, and for data that is
    no text.
    """

    def __init__(self, count: int, needs: Collection[str] = ()):
        if count < 1:
            raise ValueError(f"size is {count}; it must be at least 1")
        super().__init__(count, needs=needs)

    def _encode(self, text, start):
        try:
            ids = [int(word) for word in text.split()]
        except ValueError as error:
            raise UserError(
                f"this run has no text tokenizer: its text is numbers between spaces, not "
                f"{text.strip()[:40]!r}"
            ) from error
        require(
            all(0 <= i < self.size for i in ids),
            f"token ids must lie between 0 and {self.size - 1}",
        )
        return ids

    def _decode(self, ids, start):
        return ("" if start else " ") + " ".join(map(str, ids))

    def _state(self):
        return {"count": self.base}

    @classmethod
    def _restore(cls, state, files, needs):
        return cls(state["count"], needs)


@register("tokenizer", "ids")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ids:
    """Whole numbers below `size` between spaces; needs no fitting."""

    size: int = 256

    def most_ids(self, needs: Collection[str]) -> int:
        """Ids, exactly."""
        return self.fit(lambda: (), needs).size

    def fit(self, documents: Documents, needs: Collection[str] = ("eos", "pad")) -> Tokenizer:
        """The tokenizer; `documents` is not read."""
        del documents
        return IdTokenizer(self.size, needs)
