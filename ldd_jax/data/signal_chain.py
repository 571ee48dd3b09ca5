"""A generated Markov chain of letters with a noisy signal beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ldd_jax.core.checks import at_least_one
from ldd_jax.core.registry import register, section
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.packing import Layout
from ldd_jax.data.signals import MOST, SignalRows
from ldd_jax.data.tokenizers import Tokenizer


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

    @property
    def layout(self) -> Layout:
        """How rows are made."""
        return Layout(length=self.length, eos=False)

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
            layout=self.layout,
            fingerprint=hashlib.sha256(described.encode()).hexdigest()[:16],
            source=f"chain of {self.states} states, noise {self.noise:g}, seed {self.seed}",
            note="generated",
            channels=self.states,
        )
