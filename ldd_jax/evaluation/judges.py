"""Generated perplexity: how probable samples are under a model that did not make them.

A judge turns token rows into nats; it is asked in its own tokens, by way of the text where the
samples were made with another tokenizer. A low value is no proof of quality (`quality`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ldd_jax.core.checks import require
from ldd_jax.evaluation.ngram import NGram

BOOTSTRAP = 1000


class Codec(Protocol):
    """What a judge needs of a tokenizer."""

    size: int

    @property
    def digest(self) -> str:
        """Equal only for tokenizers that map text alike."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ...


class Judge(Protocol):
    """Token rows to nats; another kind (GPT-2, say) is another class with these five members."""

    @property
    def name(self) -> str:
        """Its name in fields and plots."""
        ...

    @property
    def tokenizer(self) -> Codec:
        """What turns a text into its tokens."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal only for judges that judge alike."""
        ...

    def nats(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Summed -log p and the number of tokens counted, of every row; float64 [N] both."""
        ...

    def features(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """What the judge sees in a row, as numbers to compare texts by (`mauve`), [N, F]."""
        ...


class Verdict(NamedTuple):
    """Nats per token of all samples together, with a bootstrap over sequences.

    One sequence tells nothing of the spread: se, low and high are NaN.
    """

    nats: float
    se: float
    low: float
    high: float
    tokens: int

    def record(self) -> dict[str, float]:
        """JSON fields; perplexity = exp(nats), its interval holds 95 %."""
        return {
            "nats": self.nats,
            "nats_se": self.se,
            "ppl": _exp(self.nats),
            "ppl_low": _exp(self.low),
            "ppl_high": _exp(self.high),
            "tokens": self.tokens,
        }

    def __str__(self) -> str:
        r = self.record()
        if math.isnan(self.se):
            return (
                f"perplexity {r['ppl']:.3f}, {self.nats:.4f} nats a token, {self.tokens} tokens of "
                "one sample, which tells no error"
            )
        return (
            f"perplexity {r['ppl']:.3f} (95 %: {r['ppl_low']:.3f} to {r['ppl_high']:.3f}), "
            f"{self.nats:.4f} +- {self.se:.4f} nats a token, {self.tokens} tokens"
        )


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700))


def bootstrap(nats: np.ndarray, tokens: np.ndarray, *, seed: int = 0) -> Verdict:
    """sum(nats) / sum(tokens), and its spread when whole sequences are drawn with replacement.

    Tokens of a sequence depend on each other, so that sequences are the unit.

    Args:
      nats: of each sequence.
      tokens: scored in each.
      seed: of the resampling.

    Raises:
      UserError: where there is no token.
    """
    nats, tokens = np.asarray(nats, np.float64), np.asarray(tokens, np.float64)
    require(tokens.sum() > 0, "the samples hold no token that the judge can score")
    pick = np.random.default_rng(seed).integers(0, len(nats), (BOOTSTRAP, len(nats)))
    count = tokens[pick].sum(1)
    again = nats[pick].sum(1)[count > 0] / count[count > 0]
    low, high = np.quantile(again, [0.025, 0.975])
    mean = float(nats.sum() / tokens.sum())
    if (tokens > 0).sum() < 2:
        return Verdict(mean, math.nan, math.nan, math.nan, int(tokens.sum()))
    return Verdict(mean, float(again.std(ddof=1)), float(low), float(high), int(tokens.sum()))


def judge_samples(
    judge: Judge, texts: Sequence[str], tokens: Sequence[np.ndarray] | None = None, digest: str = ""
) -> Verdict:
    """The verdict on samples: their own ids if `digest` is the judge's tokenizer, else the text.

    Text loses what has no text of its own (an EOS reads as a newline), so ids come first.

    Args:
      judge: scores tokens of its own tokenizer.
      texts: the samples as text.
      tokens: their ids; None = there is only text.
      digest: of the tokenizer that these are of.

    Raises:
      UserError: for samples with masks left in them.
    """
    return bootstrap(*judge.nats(rows_for(judge, texts, tokens, digest)))


def rows_for(
    judge: Judge, texts: Sequence[str], tokens: Sequence[np.ndarray] | None = None, digest: str = ""
) -> list[np.ndarray]:
    """The samples in the judge's tokens; see `judge_samples`.

    `judge`, `texts`, `tokens` and `digest` are those of `judge_samples`.
    """
    if tokens is None or digest != judge.tokenizer.digest:
        return [np.asarray(judge.tokenizer.encode(t), np.int64) for t in texts]
    rows = [np.asarray(t, np.int64) for t in tokens]
    left = sum(bool((r >= judge.tokenizer.size).any()) for r in rows)
    require(not left, f"{left} samples still hold masks; finish them (--tail=sample)")
    return rows


@dataclasses.dataclass(frozen=True)
class NGramJudge:
    """An n-gram model of the training split of the corpus that the samples imitate."""

    model: NGram
    tokenizer: Codec
    source: str
    name: str = "ngram"

    @property
    def fingerprint(self) -> str:
        """Order and corpus."""
        return f"ngram-{self.model.order}-{self.source}"

    def nats(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """See `Judge`; every token counts."""
        sums = [-np.log(self.model.probabilities(r)).sum() if len(r) else 0.0 for r in rows]
        return np.asarray(sums, np.float64), np.asarray([len(r) for r in rows], np.float64)

    def features(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Square roots of the shares of a row's n-grams, n = 1, 2, 3, hashed to 512 numbers."""
        return np.stack([hashed_grams(row) for row in rows])


def hashed_grams(row: np.ndarray, orders: int = 3, size: int = 512) -> np.ndarray:
    """sqrt(share of n-grams) by bucket, all orders together; zeros for an empty row.

    Args:
      row: ids.
      orders: grams of 1 to so many ids.
      size: buckets.
    """
    out, row = np.zeros(size), np.asarray(row, np.uint64)
    keys = np.full(len(row), 0x9E3779B97F4A7C15, np.uint64)
    for n in range(1, orders + 1):
        keys = keys[: max(len(row) - n + 1, 0)]
        # A step of FNV-1a's kind; the product is meant to wrap, and high bits are the mixed ones.
        keys = (keys ^ row[n - 1 :][: len(keys)]) * np.uint64(0xD6E8FEB86659FD93)
        keys ^= keys >> np.uint64(32)
        found = np.bincount((keys % np.uint64(size)).astype(int), minlength=size)
        out += found / max(len(keys), 1)
    return np.sqrt(out)


@dataclasses.dataclass(frozen=True)
class NetworkJudge:
    """An autoregressive network; every token counts, the first from the start state.

    `score` maps (params, arrays, key) to (nats [B], tokens [B]) and `hidden` (params, arrays, key)
    to features [B, L, D]; rows longer than the `length` it was trained with are cut into pieces
    that begin anew.
    """

    score: Callable[[Any, dict[str, Any], Any], tuple[Any, Any]]
    params: Any
    tokenizer: Codec
    length: int
    name: str
    fingerprint: str
    batch: int = 64
    hidden: Callable[[Any, dict[str, Any], Any], Any] | None = None

    def nats(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """See `Judge`."""
        nats = np.zeros(len(rows))
        for some, arrays in self._batches(rows):
            found, _ = jax.device_get(self.score(self.params, arrays, jax.random.key(0)))
            np.add.at(nats, [i for i, _ in some], np.asarray(found, np.float64)[: len(some)])
        return nats, np.asarray([len(r) for r in rows], np.float64)

    def features(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Mean over positions of the last hidden state."""
        require(self.hidden is not None, f"judge {self.name} was made without hidden states")
        assert self.hidden is not None
        sums: dict[int, Any] = dict.fromkeys(range(len(rows)), 0.0)
        for some, arrays in self._batches(rows):
            found = jax.device_get(self.hidden(self.params, arrays, jax.random.key(0)))
            for (i, piece), hidden in zip(some, np.asarray(found, np.float64)):
                sums[i] = sums[i] + hidden[: len(piece)].sum(0) / len(rows[i])
        wide = max(np.size(s) for s in sums.values())
        return np.stack([np.broadcast_to(s, (wide,)) for s in sums.values()])

    def _batches(self, rows: Sequence[np.ndarray]) -> Iterator[tuple[list, dict[str, Any]]]:
        """(row, piece) pairs that go together, and the arrays that hold them."""
        pieces = [
            (i, row[at : at + self.length])
            for i, row in enumerate(rows)
            for at in range(0, len(row), self.length)
        ]
        for first in range(0, len(pieces), self.batch):
            some = pieces[first : first + self.batch]
            z0 = np.zeros((self.batch, self.length), np.int32)
            keep = np.ones(z0.shape, bool)
            for b, (_, piece) in enumerate(some):
                z0[b, : len(piece)], keep[b, : len(piece)] = piece, False
            yield (
                some,
                {
                    "z0": z0,
                    "keep": keep,
                    "weight": (~keep).astype(np.float32),
                    "index": np.arange(self.batch, dtype=np.int32),
                },
            )
