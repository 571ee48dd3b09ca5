"""Patches of samples: those of training rows, and over a prompt its own."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldd_jax.config.experiment import Experiment, read_corpus
from ldd_jax.core import registry
from ldd_jax.core.checks import require
from ldd_jax.data import PatchedText
from ldd_jax.data.packing import CorpusRows
from ldd_jax.data.patches import numbers
from ldd_jax.inference import entropies


@dataclasses.dataclass(frozen=True)
class Patterns:
    """Where the patches of a sample start: side information, drawn from the training rows.

    Seed and number of a sample decide which row it takes.
    """

    data: PatchedText
    rows: CorpusRows

    @classmethod
    def of(cls, experiment: Experiment, length: int) -> Patterns | None:
        """Of a run whose network has to be told; None for every other.

        Args:
          experiment: the run's.
          length: tokens of a sample.

        Raises:
          UserError: for another length than the data's.
        """
        if "patches" not in experiment.config.data:
            return None
        data = registry.build("data", experiment.config.data)
        require(
            length == data.length,
            f"--length={length}: patches come from training rows, which have {data.length} tokens",
        )
        return cls(data, read_corpus(experiment).train)

    def units(
        self, index: np.ndarray, seed: int, tokens: np.ndarray, fixed: np.ndarray
    ) -> np.ndarray:
        """Patch of each position, int32 [B, L].

        Args:
          index: numbers of the samples.
          seed: of the run.
          tokens: what is fixed, [B, L].
          fixed: where, [B, L].
        """
        chance = [np.random.SeedSequence((seed, int(i))).generate_state(1)[0] for i in index]
        found = np.stack([self.rows[int(n) % len(self.rows)]["unit"] for n in chance])
        starts = np.diff(found, axis=1, prepend=-1) > 0
        front = np.cumprod(fixed, axis=1).astype(bool)  # what is fixed from the left on
        if front.any():
            own = self.data.patches.starts(tokens, entropies.of(self.data)) > 0
            known = front | np.pad(front[:, :-1], ((0, 0), (1, 0)))  # a start knows bytes before it
            starts = np.where(known, own, starts)
        starts &= np.cumsum(starts, axis=1) <= (self.data.patches.most or starts.shape[1])
        return numbers(starts.astype(np.uint8))
