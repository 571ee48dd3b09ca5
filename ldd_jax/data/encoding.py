"""Documents to token arrays, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ldd_jax.core.checks import UserError
from ldd_jax.data.tokenizers import Tokenizer

if TYPE_CHECKING:
    from ldd_jax.data.packing import Layout

TOGETHER = 1 << 18  # characters of a batch; one document may have more
AHEAD = 2  # batches that are encoded while rows are written


class Ids(NamedTuple):
    """Of a document: ids with BOS and EOS, and how much of its text the tokenizer did not know."""

    tokens: np.ndarray
    unknown: int


def here(layout: Layout, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """The ids of some documents.

    Args:
      layout: which special tokens begin and end a document.
      tokenizer: makes them.
      texts: documents.

    Raises:
      UserError: for ids that the tokenizer does not have.
    """
    kind, found = token_dtype(tokenizer.size), []
    first = [tokenizer.bos] if layout.bos else []
    last = [tokenizer.eos] if layout.eos else []
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        array = np.asarray([*first, *ids, *last], np.int64)
        unknown = tokenizer.lost(text)
        if len(array):
            if array.min() < 0 or array.max() >= tokenizer.size:
                raise UserError(
                    f"the tokenizer gave id {int(array.max())}, but it has only {tokenizer.size} "
                    "ids; its file is damaged"
                )
            if tokenizer.unknown is not None:
                unknown += int((array == tokenizer.unknown).sum())
        found.append(Ids(array.astype(kind), unknown))
    return found


def grouped(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in batches of about `TOGETHER` characters."""
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encoded(layout: Layout, tokenizer: Tokenizer, documents: Iterable[str]) -> Iterator[Ids]:
    """The ids of documents, in order; at most three batches of them exist.

    A tokenizer that works outside of Python (`Tokenizer.apart`) does so on all cores, while this
    thread reads the next documents and writes the rows of those before.

    Args:
      layout: as in `here`.
      tokenizer: as in `here`.
      documents: are read one batch ahead.
    """
    if not tokenizer.apart:
        for batch in grouped(documents):
            yield from here(layout, tokenizer, batch)
        return
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[list[Ids]]] = deque()
        try:
            for batch in grouped(documents):
                waiting.append(thread.submit(here, layout, tokenizer, batch))
                if len(waiting) > AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:  # whoever reads has had enough
            for later in waiting:
                later.cancel()


def token_dtype(size: int) -> np.dtype:
    """The smallest unsigned type of two or four bytes that holds `size` ids."""
    return np.dtype("<u2" if size <= 1 << 16 else "<u4")
