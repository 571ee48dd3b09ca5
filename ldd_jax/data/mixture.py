"""Several corpora in one run, each with its share of the rows."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ldd_jax.core.checks import require
from ldd_jax.core.registry import register
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.joined import Joined
from ldd_jax.data.packing import entropy
from ldd_jax.data.prepared import is_prepared, read_prepared
from ldd_jax.data.splits import Divided
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer

COUNTED = 4096  # rows whose tokens are counted for the entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(Joined):
    """Rows of several splits, source after source, each as often as its share asks for.

    A row by number is a function of the number alone, so that order, shuffling, resuming and many
    processes are those of any other rows (`pipeline.batches`): an epoch of N rows deals every
    source's share exactly.

    Attributes:
      parts: rows of the sources.
      weights: their shares, to any scale.
      repeat: N is the least with which every row of every source is dealt in an epoch, so that rows
        of sources with a large share come several times; else the largest with which none does.
    """

    weights: tuple[float, ...]
    repeat: bool

    def __post_init__(self):
        share = np.asarray(self.weights, np.float64) / sum(self.weights)
        sizes = [len(p) for p in self.parts]
        total = (max if self.repeat else min)(n / w for n, w in zip(sizes, share, strict=True))
        near = math.ceil if self.repeat else math.floor
        counts = [max(near(round(total * w, 6)), 1) for w in share]
        object.__setattr__(self, "counts", tuple(counts))
        object.__setattr__(self, "_ends", np.cumsum(counts))

    counts: tuple[int, ...] = dataclasses.field(init=False, default=())

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        ends = self._ends  # type: ignore[attr-defined]
        part = int(np.searchsorted(ends, index, side="right"))
        own = index - (int(ends[part - 1]) if part else 0)
        rows, count = self.parts[part], self.counts[part]
        # Where not all are taken, they are spread: neighbours are alike.
        return rows[own % len(rows) if count >= len(rows) else own * len(rows) // count]

    @property
    def entropy(self) -> float:
        """Entropy of the scored tokens' own distribution, of 4,096 rows at equal distances."""
        total, most = len(self), min(len(self), COUNTED)
        counts = np.zeros(1, np.int64)
        for i in range(most):
            row = self[i * total // most]
            found = np.bincount(row["tokens"][~row["keep"]], minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        return entropy(counts)


@register("data", "mixture")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture(TextData):
    """Rows of `path` and of `others`, in the shares of `weights`.

    All have one layout and one tokenizer: that of the prepared folders among them, which must be
    equal, else one that is fitted on the training documents of all. Validation rows are mixed in
    the same shares, none of them twice.

    Attributes:
      others: paths of the further sources.
      weights: shares of path and others, to any scale; none = by their numbers of rows.
    """

    path: str = ""
    others: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    of_path: ClassVar[Mapping[str, Any]] = {**TextData.of_path, "others": (), "weights": ()}

    def __post_init__(self):
        super().__post_init__()
        if self.weights and len(self.weights) != 1 + len(self.others):
            raise ValueError(
                f"{len(self.weights)} weights for {1 + len(self.others)} paths (data.path and "
                "data.others); give one for each"
            )
        if any(not 0 < w < math.inf for w in self.weights):
            raise ValueError(f"weights is {self.weights}; each must be above 0")
        if self.validation_path and self.others:
            raise ValueError("validation_path is of one source; a mixture validates on all")

    @property
    def sources(self) -> tuple[TextData, ...]:
        """Each by itself."""
        names = {f.name for f in dataclasses.fields(TextData)}
        same = {name: getattr(self, name) for name in names}
        return tuple(TextData(**same | {"path": path}) for path in (self.path, *self.others))

    def check(self) -> None:
        """As `TextData.check`, of every source."""
        for source in self.sources:
            source.check()

    def most_ids(self) -> int:
        """As `TextData.most_ids`."""
        prepared = [s for s in self.sources if is_prepared(s.path)]
        return (prepared or self.sources)[0].most_ids()

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """As `TextData.load`, of every source.

        Raises:
          UserError: as there, or for folders that were prepared with other tokenizers.
        """
        sources = self.sources
        tokenizer = tokenizer or self._tokenizer(sources)
        corpora = [s.load(tokenizer, verify=verify) for s in sources]
        weights = self.weights or tuple(float(len(c.train)) for c in corpora)
        digest = hashlib.sha256("".join(c.fingerprint for c in corpora).encode()).hexdigest()
        mixed = lambda name, repeat: Mixed(
            parts=tuple(c.rows(name) for c in corpora), weights=weights, repeat=repeat
        )
        share = ", ".join(
            f"{w / sum(weights):.3g} of {c.source}" for w, c in zip(weights, corpora, strict=True)
        )
        return Corpus(
            tokenizer=tokenizer,
            train=mixed("train", True),
            validation=mixed("validation", False),
            layout=self.layout,
            fingerprint=digest[:16],
            source=" + ".join(c.source for c in corpora),
            note=f"a mixture: {share}",
        )

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """As `TextData.whole`; a mixture keeps its splits."""
        return self.load(tokenizer) if self.others else super().whole(tokenizer)

    def divide(self) -> Divided:
        """Refused where there are several sources.

        Raises:
          UserError: saying how they are prepared.
        """
        require(
            not self.others,
            "a mixture is not prepared: prepare each source by itself, with one tokenizer, and "
            "give the folders as data.path and data.others",
        )
        return super().divide()

    def _tokenizer(self, sources: Collection[TextData]) -> Tokenizer:
        for source in sources:
            if is_prepared(source.path):
                return read_prepared(source.path, verify=False).tokenizer
        divided = [source.divide() for source in sources]
        documents = lambda: _chained(d.train() for d in divided)
        return self.tokenizer.fit(documents, needs=self.layout.needs)


def _chained(parts: Iterable[Iterable[str]]) -> Iterable[str]:
    return itertools.chain.from_iterable(parts)
