"""Tokens with a signal [L, C] beside them: rows of both, and pairs of one's own."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ldd_jax.core.checks import UserError, at_least_one, parse_json, require
from ldd_jax.core.registry import component, register
from ldd_jax.core.storage import at
from ldd_jax.data.characters import Characters
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.files import numbered_lines
from ldd_jax.data.packing import Layout, entropy, example, token_dtype
from ldd_jax.data.splits import document_hash
from ldd_jax.data.tokenizers import Tokenizer

MOST = 1 << 28  # numbers of a signal that are held in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalRows:
    """Rows of tokens and their signals, in memory.

    Attributes:
      tokens: [N, L].
      signal: float32 [N, L, C], 0 past the end of a row.
      filled: [N] positions that count.
      size: ids of the tokenizer.
      unknown: tokens that stand for what it does not know.
    """

    tokens: np.ndarray
    signal: np.ndarray
    filled: np.ndarray
    size: int
    unknown: int = 0

    dropped: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        filled = int(self.filled[index])
        inside = np.arange(self.tokens.shape[1]) < filled
        segment = None if (self.filled == self.tokens.shape[1]).all() else inside
        row = example(self.tokens[index], filled, segment)
        return row | {"signal": self.signal[index].astype(np.float32)}

    @property
    def documents(self) -> int:
        """One a row."""
        return len(self.tokens)

    @property
    def token_count(self) -> int:
        """Tokens that count."""
        return int(self.filled.sum())

    @property
    def entropy(self) -> float:
        """Entropy of the tokens' own distribution, nats a token."""
        scored = self.tokens[np.arange(self.tokens.shape[1]) < self.filled[:, None]]
        return entropy(np.bincount(scored, minlength=self.size))


Pairs = list[tuple[str, np.ndarray]]


def read_pairs(path: str, channels: int) -> Pairs:
    """JSON lines {"text": ..., "signal": [[C numbers] for every token]}.

    Args:
      path: of the file.
      channels: C, numbers of the signal at a position.

    Raises:
      UserError: naming the file and line.
    """
    found: Pairs = []
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = parse_json(line)
            text, signal = record["text"], np.asarray(record["signal"], np.float64)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"{where}: not JSON with keys text and signal ({error})") from error
        require(isinstance(text, str) and bool(text), f"{where}: text is no text, or empty")
        require(
            signal.ndim == 2 and signal.shape[1] == channels and bool(np.isfinite(signal).all()),
            f"{where}: signal is not a list of {channels} finite numbers for every token (shape "
            f"{signal.shape})",
        )
        found.append((text, signal.astype(np.float32)))
    require(bool(found), f"{path} holds no pair")
    return found


@register("data", "pairs")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PairData:
    """JSON lines with a text and a signal of one point per token; what `sample` writes is such.

    Attributes:
      path: of the file.
      validation_path: pairs to validate on; "" = a share of the path's, by the hash of their text.
      validation_fraction: that share.
      channels: numbers of a point.
      tokenizer: of the texts.
      length: tokens of a row at most; shorter ones are padded, and their padding is not seen.
    """

    path: str = ""
    validation_path: str = ""
    validation_fraction: float = 0.05
    channels: int = 1
    tokenizer: Any = component("tokenizer", Characters)
    length: int = 32

    of_path: ClassVar[Mapping[str, Any]] = {"validation_path": ""}

    def __post_init__(self):
        at_least_one(self, "channels", "length")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; between 0 and 1")

    @property
    def layout(self) -> Layout:
        """How rows are made."""
        return Layout(length=self.length, eos=False, mode="padded")

    def most_ids(self) -> int:
        """Ids at most."""
        return self.tokenizer.most_ids(("pad",))

    def check(self) -> None:
        """Refuse files that are not there.

        Raises:
          UserError: naming the file.
        """
        require(bool(self.path), "data.path is empty; give JSON lines with text and signal")
        for path in filter(None, (self.path, self.validation_path)):
            require(at(path).is_file(), f"{path}: no such file")

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Read and split.

        Raises:
          UserError: for a file that cannot be read, or a pair that fits no row.
        """
        del verify
        self.check()
        found = read_pairs(self.path, self.channels)
        note = f"validation from {self.validation_path}"
        if self.validation_path:
            train, held = found, read_pairs(self.validation_path, self.channels)
        else:
            limit = int(self.validation_fraction * 2**64)
            train = [pair for pair in found if document_hash(pair[0]) >= limit]
            held = [pair for pair in found if document_hash(pair[0]) < limit]
            note = f"validation by hash of the text, fraction {self.validation_fraction:.3g}"
            require(
                bool(train and held),
                f"{self.path}: too few different texts to split; give data.validation_path",
            )
        if tokenizer is None:
            tokenizer = self.tokenizer.fit(lambda: (text for text, _ in train), needs=("pad",))
        return self._corpus(tokenizer, train, held, note)

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """All pairs of the path, as both splits."""
        pairs = read_pairs(self.path, self.channels)
        return self._corpus(tokenizer, pairs, pairs, "read whole")

    def _corpus(self, tokenizer: Tokenizer, train: Pairs, held: Pairs, note: str) -> Corpus:
        digest = hashlib.sha256()
        for text, signal in (*train, *held):
            digest.update(text.encode() + signal.tobytes())
        return Corpus(
            tokenizer=tokenizer,
            train=self.rows(tokenizer, train),
            validation=self.rows(tokenizer, held),
            layout=self.layout,
            fingerprint=digest.hexdigest()[:16],
            source=self.path,
            note=note,
            channels=self.channels,
        )

    def rows(self, tokenizer: Tokenizer, pairs: Pairs) -> SignalRows:
        """Pairs as rows.

        Raises:
          UserError: for a pair whose text has not one token for every point, or that is too long.
        """
        tokens = np.full((len(pairs), self.length), tokenizer.pad or 0, token_dtype(tokenizer.size))
        signal = np.zeros((*tokens.shape, self.channels), np.float32)
        filled = np.zeros(len(pairs), np.int32)
        unknown = 0
        for i, (text, x) in enumerate(pairs):
            ids = tokenizer.encode(text)
            require(
                len(ids) == len(x),
                f"{text[:40]!r} has {len(ids)} tokens, but its signal {len(x)} points",
            )
            require(
                len(ids) == self.length or (len(ids) < self.length and tokenizer.pad is not None),
                f"{text[:40]!r} has {len(ids)} tokens, a row {self.length}"
                + ("; raise data.length" if len(ids) > self.length else " and no padding"),
            )
            tokens[i, : len(ids)], signal[i, : len(ids)], filled[i] = ids, x, len(ids)
            unknown += ids.count(-1 if tokenizer.unknown is None else tokenizer.unknown)
        return SignalRows(
            tokens=tokens, signal=signal, filled=filled, size=tokenizer.size, unknown=unknown
        )
