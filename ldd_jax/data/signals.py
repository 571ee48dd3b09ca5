"""Tokens with a signal [L, C] beside them: a generated chain, pairs of one's own, any text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ldd_jax.core.checks import UserError, at_least_one, parse_json, require
from ldd_jax.core.registry import component, register, section
from ldd_jax.data.characters import Characters, CharacterTokenizer
from ldd_jax.data.files import numbered_lines
from ldd_jax.data.packing import CorpusRows, Layout, entropy, example, token_dtype
from ldd_jax.data.splits import document_hash
from ldd_jax.data.text import Corpus, TextData
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


def chain(states: int, concentration: float, seed: int) -> np.ndarray:
    """Transitions [S, S] of a Markov chain, rows from Dirichlet(concentration).

    Args:
      states: S.
      concentration: small = neighbours tell much of each other.
      seed: of the matrix.
    """
    return np.random.default_rng(seed).dirichlet(np.full(states, concentration), states)


def codes(states: int) -> np.ndarray:
    """1 in the channel of a state, -1 in all others, [S, S]."""
    return 2 * np.eye(states) - 1


@register("data", "chain")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainData:
    """A Markov chain of letters, each shown as its code with Gaussian noise; generated.

    c_1 uniform, c_(l+1) ~ chain[c_l], x_l = code(c_l) + noise N(0, 1), where code(c) is 1 in the
    channel of c and -1 in the others: all laws are known in closed form (`oracle.signals`).

    Attributes:
      states: letters of the chain, and channels of the signal.
      noise: standard deviation of the signal about its code.
      concentration: of the chain's rows, see `chain`.
      seed: of the chain and the rows; not of the run, so that all runs see the same.
      train_count: rows to train on.
      validation_count: rows to validate on.
      length: letters of a row.
    """

    states: int = 6
    noise: float = 0.5
    concentration: float = 0.3
    seed: int = 0
    train_count: int = 20_000
    validation_count: int = 2_000
    length: int = 32

    of_path: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self):
        at_least_one(self, "train_count", "validation_count", "length")
        if not 2 <= self.states <= len(string.ascii_letters):
            raise ValueError(f"states is {self.states}; 2 to {len(string.ascii_letters)}")
        if not self.noise > 0 or not self.concentration > 0:
            raise ValueError("noise and concentration must be above 0")
        if (self.train_count + self.validation_count) * self.length * self.states > MOST:
            raise ValueError("the signals of so many rows do not fit; lower train_count or length")

    def most_ids(self) -> int:
        """Ids, exactly."""
        return self._tokenizer().size

    def check(self) -> None:
        """No file can be missing."""

    def _tokenizer(self) -> Tokenizer:
        return CharacterTokenizer(string.ascii_letters[: self.states])

    def draw(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Letters [count, L] and their signals [count, L, S].

        Args:
          count: rows.
          seed: of these rows.
        """
        rng = np.random.default_rng((self.seed, seed))
        move = np.cumsum(chain(self.states, self.concentration, self.seed), axis=1)
        c = np.empty((count, self.length), np.int64)
        c[:, 0] = rng.integers(0, self.states, count)
        for i in range(1, self.length):
            u = rng.random((count, 1))
            c[:, i] = np.minimum((u >= move[c[:, i - 1]]).sum(1), self.states - 1)
        x = codes(self.states)[c] + self.noise * rng.normal(size=(*c.shape, self.states))
        return c.astype(np.uint8), x.astype(np.float32)

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Generate both splits."""
        del verify
        tokenizer = tokenizer or self._tokenizer()
        rows = []
        for seed, count in enumerate((self.train_count, self.validation_count), 1):
            c, x = self.draw(count, seed)
            full = np.full(count, self.length)
            rows.append(SignalRows(tokens=c, signal=x, filled=full, size=tokenizer.size))
        described = json.dumps(section(self).to_dict(), sort_keys=True)
        return Corpus(
            tokenizer=tokenizer,
            train=rows[0],
            validation=rows[1],
            layout=Layout(length=self.length, eos=False),
            fingerprint=hashlib.sha256(described.encode()).hexdigest()[:16],
            source=f"chain of {self.states} states, noise {self.noise:g}, seed {self.seed}",
            note="generated",
            channels=self.states,
        )


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
            require(Path(path).is_file(), f"{path}: no such file")

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
            layout=Layout(length=self.length, eos=False, mode="padded"),
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
class ShapedRows:
    """Rows of text with the features of their tokens, row by row.

    Attributes:
      rows: of the text.
      table: features of every id, [size, C].
    """

    rows: CorpusRows
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.rows[index]
        return row | {"signal": self.table[row["tokens"]]}

    @property
    def documents(self) -> int:
        """Those of the text."""
        return self.rows.documents

    @property
    def token_count(self) -> int:
        """Those of the text."""
        return self.rows.token_count

    @property
    def dropped(self) -> int:
        """Those of the text."""
        return self.rows.dropped

    @property
    def unknown(self) -> int | None:
        """Those of the text."""
        return self.rows.unknown

    @property
    def entropy(self) -> float:
        """That of the text."""
        return self.rows.entropy


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
