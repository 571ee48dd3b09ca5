"""Training and validation documents of a corpus, disjoint and the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator

from ldd_jax.data.sources import Source, fingerprint
from ldd_jax.data.tokenizers import Documents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Divided:
    """The two splits, each readable any number of times.

    Attributes:
      train: starts a pass over the training documents.
      validation: starts a pass over the validation documents.
      fingerprint: of all documents together.
      note: where the validation documents come from, in words.
      limit: documents of the source whose hash is below it validate; None = the two are read apart;
        0 = they are two parts of one document.
    """

    train: Documents
    validation: Documents
    fingerprint: str
    note: str
    limit: int | None = None


def document_hash(text: str) -> int:
    """64 bits of a document's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def divide(
    source: Source, validation: Source | None, *, fraction: float, max_documents: int = 0
) -> Divided:
    """Split a corpus by document, in constant memory.

    Validation comes from `validation` if given, else from the source's own validation split, else
    from the documents whose hash is under `fraction`: equal texts fall on one side, and a corpus
    that grows keeps its sides. Neither side is empty if two documents differ; a corpus of one
    document has its tail cut off.

    Args:
      source: the corpus.
      validation: documents to validate on, or None.
      fraction: share of the documents (of a lone document's text) that validates.
      max_documents: only so many documents of each source; 0 = all.
    """

    def limited(read: Callable[[], Iterator[str]]) -> Documents:
        return lambda: itertools.islice(read(), max_documents or None)

    train = limited(source.documents)
    held_out = None
    if validation is not None:
        held_out, note = limited(validation.documents), f"validation from {validation.name}"
    elif source.validation is not None:
        held_out, note = limited(source.own_validation), f"{source.name}'s own validation split"
    if held_out is not None:
        both = fingerprint(itertools.chain(train(), held_out()))
        return Divided(train=train, validation=held_out, fingerprint=both, note=note)

    threshold = int(fraction * 2**64)
    lowest, highest = 2**64, -1

    def watched() -> Iterator[str]:
        nonlocal lowest, highest
        for text in train():
            value = document_hash(text)
            lowest, highest = min(lowest, value), max(highest, value)
            yield text

    whole = fingerprint(watched())
    if lowest == highest:
        note = f"a single document: its last {fraction:.3g} validates"
        return Divided(
            train=lambda: (_cut(text, fraction)[0] for text in train()),
            validation=lambda: (_cut(text, fraction)[1] for text in train()),
            fingerprint=whole,
            note=note,
            limit=0,
        )
    limit = threshold if lowest < threshold else lowest + 1
    limit = min(limit, highest)
    return Divided(
        train=lambda: (text for text in train() if document_hash(text) >= limit),
        validation=lambda: (text for text in train() if document_hash(text) < limit),
        fingerprint=whole,
        note=f"validation by document hash, fraction {fraction:.3g}",
        limit=limit,
    )


def _cut(text: str, fraction: float) -> tuple[str, str]:
    """A text without its tail, and the tail."""
    at = len(text) - max(1, round(fraction * len(text)))
    return text[:at], text[at:]
