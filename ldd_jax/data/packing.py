"""Token streams cut into rows of one length, and the rows themselves.

Two modes. `packed`: documents end to end, cut every L tokens; the remainder of the corpus is
dropped and counted. `padded`: every document starts a row; a long one goes on in further rows, and
its last row is padded. Two policies for the padding. `ignore`: padding is never corrupted (keep),
weighs 0 and has segment 0. `eos_in_loss`: it is EOS, corrupted and scored like any token, so that
a model learns to end a text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from ldd_jax.core.checks import nearest, require
from ldd_jax.data.encoding import encoded, token_dtype
from ldd_jax.data.tokenizers import Tokenizer

MODES = ("packed", "padded")
PADS = ("ignore", "eos_in_loss")
LONGEST = 1 << 20  # tokens of a row: attention over more fits no device
_BLOCK = 1 << 22  # tokens that are joined into one array
MOST_PADDING = 1 << 32  # tokens of padding that are held in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How token streams become rows.

    Attributes:
      length: L, tokens a row.
      mode: "packed" or "padded".
      pad: "ignore" or "eos_in_loss"; matters in padded mode only.
      bos: begin each document with BOS.
      eos: end each document with EOS.
      segments: number the documents of a row (from 1), so that attention can stay within them.
    """

    length: int = 64
    mode: str = "packed"
    pad: str = "ignore"
    bos: bool = False
    eos: bool = True
    segments: bool = False

    def __post_init__(self):
        if not 1 <= self.length <= LONGEST:
            raise ValueError(f"length={self.length}; it must be 1 to {LONGEST:,} tokens")
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r}; {nearest(self.mode, MODES)}")
        if self.pad not in PADS:
            raise ValueError(f"pad={self.pad!r}; {nearest(self.pad, PADS)}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Special tokens this layout uses."""
        padded = self.mode == "padded"
        used = {
            "bos": self.bos,
            "eos": self.eos or (padded and self.pad == "eos_in_loss"),
            "pad": padded and self.pad == "ignore",
        }
        return tuple(name for name, needed in used.items() if needed)

    @property
    def own_rows(self) -> bool:
        """Whether a document is a row of its own, which ends with it."""
        return self.mode == "padded" and "eos" in self.needs

    @property
    def has_segments(self) -> bool:
        """Whether rows carry segments: on request, and wherever padding must not be attended to."""
        return self.segments or "pad" in self.needs


class Row(NamedTuple):
    """One row: tokens [L]; filled, how many of them count; segment [L] (0 = padding)."""

    tokens: np.ndarray
    filled: int
    segment: np.ndarray


class Packer:
    """Turns documents into rows and counts what went in.

    Attributes:
      documents: documents packed so far.
      tokens: their tokens, BOS and EOS among them, padding not.
      unknown: those of them that stand for what the tokenizer does not know, and what it loses.
      dropped: tokens of the remainder that filled no row.

    Raises:
      UserError: if the tokenizer lacks a special token that the layout uses.
    """

    def __init__(self, layout: Layout, tokenizer: Tokenizer):
        self.layout, self.tokenizer = layout, tokenizer
        self.documents = self.tokens = self.dropped = self.unknown = 0
        for name in layout.needs:
            require(
                getattr(tokenizer, name) is not None,
                f"the tokenizer has no {name} token, which mode={layout.mode!r}, pad="
                f"{layout.pad!r}, bos={layout.bos}, eos={layout.eos} uses",
            )
        fill = tokenizer.pad if layout.pad == "ignore" else tokenizer.eos
        self._fill = fill or 0
        self.dtype = token_dtype(tokenizer.size)

    def rows(self, documents: Iterable[str]) -> Iterator[Row]:
        """Rows of the documents, in order."""
        cut = {"packed": self._packed, "padded": self._padded}[self.layout.mode]
        return cut(self._encoded(documents))

    def _encoded(self, documents: Iterable[str]) -> Iterator[np.ndarray]:
        """Token arrays with BOS and EOS."""
        for tokens, unknown in encoded(self.layout, self.tokenizer, documents):
            self.unknown += unknown
            if len(tokens):
                self.documents += 1
                self.tokens += len(tokens)
                yield tokens

    def _packed(self, streams: Iterable[np.ndarray]) -> Iterator[Row]:
        length = self.layout.length
        tokens: list[np.ndarray] = []
        numbers: list[np.ndarray] = []
        waiting = 0
        for number, stream in enumerate(streams):
            tokens.append(stream)
            numbers.append(np.full(len(stream), number, np.int64))
            waiting += len(stream)
            if waiting < length:
                continue
            flat, owner = np.concatenate(tokens), np.concatenate(numbers)
            whole = waiting - waiting % length
            for at in range(0, whole, length):
                own = owner[at : at + length]
                segment = (own - own[0] + 1).astype(np.int32)
                yield Row(flat[at : at + length], length, segment)
            tokens, numbers = [flat[whole:]], [owner[whole:]]
            waiting -= whole
        self.dropped += waiting

    def _padded(self, streams: Iterable[np.ndarray]) -> Iterator[Row]:
        length, trained = self.layout.length, self.layout.pad == "eos_in_loss"
        for stream in streams:
            for at in range(0, len(stream), length):
                piece = stream[at : at + length]
                tokens = np.full(length, self._fill, self.dtype)
                tokens[: len(piece)] = piece
                filled = length if trained else len(piece)
                yield Row(tokens, filled, (np.arange(length) < filled).astype(np.int32))


class Rows(Protocol):
    """Rows by number: what the pipeline reads, in memory or on disk."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """A row: tokens int32 [L], keep bool [L], weight float32 [L], maybe segment int32 [L]."""
        ...


class CorpusRows(Rows, Protocol):
    """Rows of a split, counted."""

    @property
    def documents(self) -> int:
        """Documents that the rows came from."""
        ...

    @property
    def token_count(self) -> int:
        """Their tokens."""
        ...

    @property
    def dropped(self) -> int:
        """Tokens of the remainder that filled no row."""
        ...

    @property
    def unknown(self) -> int | None:
        """Tokens that stand for what the tokenizer does not know; None = nobody has counted."""
        ...

    @property
    def entropy(self) -> float:
        """Entropy of the scored tokens' own distribution, nats a token."""
        ...


def example(tokens: np.ndarray, filled: int, segment: np.ndarray | None) -> dict[str, np.ndarray]:
    """One row as the pipeline reads it.

    `tokens` [L], of which the first `filled` are text; `segment` [L], their documents, or None.
    """
    keep = np.arange(len(tokens)) >= filled
    row = {
        "tokens": tokens.astype(np.int32),
        "keep": keep,
        "weight": (~keep).astype(np.float32),
    }
    if segment is not None:
        row["segment"] = segment.astype(np.int32)
    return row


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryRows:
    """Rows held in memory, two or four bytes a token.

    Attributes:
      tokens: [N, L] unsigned.
      filled: [N] positions that count.
      segment: [N, L], or None where segments are not used.
      documents, token_count, dropped, unknown: see `Packer`.
      counts: [size], how often each id occurs among the scored tokens.
    """

    tokens: np.ndarray
    filled: np.ndarray
    segment: np.ndarray | None
    documents: int
    token_count: int
    dropped: int
    counts: np.ndarray
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        segment = None if self.segment is None else self.segment[index]
        return example(self.tokens[index], int(self.filled[index]), segment)

    @property
    def entropy(self) -> float:
        """Entropy of the scored tokens' own distribution, nats a token."""
        return entropy(self.counts)


def entropy(counts: np.ndarray) -> float:
    """-sum p log p of counts, in nats."""
    total = int(counts.sum())
    if not total:
        return math.nan
    p = counts[counts > 0] / total
    return float(-(p * np.log(p)).sum()) + 0.0


def collect(packer: Packer, documents: Iterable[str], *, block: int = 4096) -> MemoryRows:
    """Pack documents into memory.

    The `packer` makes rows of the `documents`; at most `block` of them wait to be joined.

    Raises:
      UserError: where short documents in long rows would fill it with padding.
    """
    layout = packer.layout
    block = max(1, min(block, _BLOCK // layout.length))
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    narrow = np.uint16 if layout.length < 1 << 16 else np.uint32
    counts = np.zeros(packer.tokenizer.size, np.int64)
    waiting: list[Row] = []

    def flush() -> None:
        if waiting:
            tokens = np.stack([r.tokens for r in waiting])
            filled = np.asarray([r.filled for r in waiting], np.int32)
            # A row without segments costs nothing: its share is an empty array.
            share = [r.segment if layout.has_segments else r.segment[:0] for r in waiting]
            parts.append((tokens, filled, np.stack(share).astype(narrow)))
            scored = tokens[np.arange(layout.length) < filled[:, None]]
            counts[:] += np.bincount(scored, minlength=len(counts))
            waiting.clear()

    for number, row in enumerate(packer.rows(documents), 1):
        waiting.append(row)
        require(
            number * layout.length <= packer.tokens + MOST_PADDING,
            f"{number:,} rows of {layout.length} tokens hold {packer.tokens:,}, the rest is "
            "padding; give a smaller data.length, or data.mode=packed",
        )
        if len(waiting) == block:
            flush()
    flush()
    if not parts:
        empty = np.zeros((0, layout.length), packer.dtype)
        parts.append((empty, np.zeros(0, np.int32), np.zeros((0, layout.length), narrow)))
    tokens, filled, segment = (np.concatenate(p) for p in zip(*parts, strict=True))
    return MemoryRows(
        tokens=tokens,
        filled=filled,
        segment=segment if layout.has_segments else None,
        documents=packer.documents,
        token_count=packer.tokens,
        dropped=packer.dropped,
        counts=counts,
        unknown=packer.unknown,
    )
