"""No data: a target whose weight is all that a sampler learns from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import component, register, section
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.ids import IdTokenizer
from ldd_jax.data.packing import Layout
from ldd_jax.data.tokenizers import Tokenizer
from ldd_jax.targets import Ising

ROWS = 1 << 24  # as many as a batch may have


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlankRows:
    """Rows of zeros, which give a batch its shape: the objective draws what it learns from.

    Attributes:
      length: sites of a row.
      states: of a site.
    """

    length: int
    states: int

    documents: ClassVar[int] = 0
    token_count: ClassVar[int] = 0
    dropped: ClassVar[int] = 0
    unknown: ClassVar[None] = None

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {
            "tokens": np.zeros(self.length, np.int32),
            "keep": np.zeros(self.length, bool),
            "weight": np.ones(self.length, np.float32),
        }

    @property
    def entropy(self) -> float:
        """Of the uniform law."""
        return math.log(self.states)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoCorpus(Corpus):
    """What a run on a target has in the place of a corpus."""

    def rows(self, split: str) -> Any:
        """Refused: there is nothing to score.

        Raises:
          UserError: always.
        """
        raise UserError(
            f"{self.source} is a target without data: there are no {split} rows to score; "
            "`energy --workdir=DIR` measures what is learned from one"
        )

    def unigram_entropy(self, split: str = "validation") -> float:
        """Of independent, uniform sites."""
        del split
        return self.train.entropy

    def unknown_share(self, split: str = "validation") -> float | None:
        """None: nobody counted."""
        del split
        return None

    def describe(self) -> str:
        """One line."""
        return f"{self.source} ({self.fingerprint}), {self.tokenizer.size} states a site; no data"


@register("data", "target")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetData:
    """A target to sample from; no file is read.

    Attributes:
      target: the weight of every configuration.
      length: its sites.
    """

    target: Any = component("target", Ising)
    length: int = 16

    of_path: ClassVar[Mapping[str, Any]] = {}
    """As of `TextData`."""

    def __post_init__(self):
        if self.length != self.target.sites:
            raise ValueError(
                f"length is {self.length}, but the target has {self.target.sites} sites; set "
                f"data.length to {self.target.sites}"
            )

    @property
    def layout(self) -> Layout:
        """How rows are made."""
        return Layout(length=self.length, eos=False)

    def most_ids(self) -> int:
        """Ids, exactly."""
        return self.target.states

    def check(self) -> None:
        """No file can be missing."""

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Blank rows, and states written as numbers."""
        del verify
        rows = BlankRows(length=self.length, states=self.target.states)
        described = json.dumps(section(self.target).to_dict(), sort_keys=True)
        return NoCorpus(
            tokenizer=tokenizer or IdTokenizer(self.target.states),
            train=rows,
            validation=rows,
            layout=self.layout,
            fingerprint=hashlib.sha256(described.encode()).hexdigest()[:16],
            source=f"target {self.target.registered[1]}",
            note="no data",
        )

    def divide(self) -> Any:
        """Refused: there are no documents.

        Raises:
          UserError: always.
        """
        raise UserError("a target has no documents that could be prepared")

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """The same."""
        return self.load(tokenizer)
