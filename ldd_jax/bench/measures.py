"""What is measured of the samples of a cell: judges, diversity, distance to validation texts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ldd_jax.bench.baselines import references
from ldd_jax.data import Corpus
from ldd_jax.evaluation import mauve, quality
from ldd_jax.evaluation.judges import Judge, judge_samples, rows_for


@dataclasses.dataclass
class Measures:
    """Fields of a cell from its tokens; the first judge is the one that is plotted."""

    corpus: Corpus
    judges: list[Judge]
    mauve: bool

    def __post_init__(self) -> None:
        self._references: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, tokens: np.ndarray, seed: int, mask: int | None = None) -> dict[str, Any]:
        """All measures of a set of samples.

        Args:
          tokens: samples, [N, L].
          seed: of the choice of texts that they are compared to.
          mask: that of the process; None = it has none.
        """
        texts, digest = self._texts(tokens, mask), self.corpus.tokenizer.digest
        found = {
            judge.name: judge_samples(judge, texts, list(tokens), digest).record()
            for judge in self.judges
        }
        name = self.judges[0].name
        return {
            "samples": len(tokens),
            "length": tokens.shape[1],
            **quality.describe(list(tokens)),
            "judge": name,
            **{f"judge_{k}": v for k, v in found[name].items()},
            **(self._distance(tokens, texts, seed) if self.mauve else {}),
            "judges": found,
            "sample": texts[0],
        }

    def _texts(self, tokens: np.ndarray, mask: int | None = None) -> list[str]:
        return [self.corpus.tokenizer.decode(row.tolist(), mask=mask) for row in tokens]

    def _features(self, tokens: np.ndarray, texts: list[str]) -> np.ndarray:
        judge, digest = self.judges[0], self.corpus.tokenizer.digest
        return judge.features(rows_for(judge, texts, list(tokens), digest))

    def _distance(self, tokens: np.ndarray, texts: list[str], seed: int) -> dict[str, Any]:
        key = (*tokens.shape, seed)
        if key not in self._references:
            real = references(self.corpus, *key)
            self._references[key] = self._features(real, self._texts(real))
        return mauve.mauve(self._features(tokens, texts), self._references[key]).record()
