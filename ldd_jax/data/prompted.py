"""Rows whose front is given: the prompt is kept, what answers it is learned."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldd_jax.data.packing import entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedRows:
    """Rows prompt | answer EOS | rest: the answer and its EOS are learned, the prompt is kept.

    Attributes:
      tokens: [N, L].
      prompt: [N] positions at the front that are kept.
      filled: [N] positions that are not padding; L where padding is learned.
      segments: whether rows say where they are padding (segment 0), which nothing then attends to.
      documents, token_count, dropped, counts, unknown: as of `packing.MemoryRows`.
    """

    tokens: np.ndarray
    prompt: np.ndarray
    filled: np.ndarray
    segments: bool = False
    documents: int
    token_count: int
    dropped: int = 0
    counts: np.ndarray
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        at = np.arange(self.tokens.shape[1])
        keep = (at < self.prompt[index]) | (at >= self.filled[index])
        row = {
            "tokens": self.tokens[index].astype(np.int32),
            "keep": keep,
            "weight": (~keep).astype(np.float32),
        }
        return row | (
            {"segment": (at < self.filled[index]).astype(np.int32)} if self.segments else {}
        )

    @property
    def entropy(self) -> float:
        """Entropy of the scored tokens' own distribution, nats a token."""
        return entropy(self.counts)


def scored_counts(
    tokens: np.ndarray, prompt: np.ndarray, filled: np.ndarray, size: int
) -> np.ndarray:
    """How often each id stands where it is learned.

    Args:
      tokens: as of `PromptedRows`.
      prompt: as of `PromptedRows`.
      filled: as of `PromptedRows`.
      size: number of ids.
    """
    at = np.arange(tokens.shape[1])
    on = (at >= prompt[:, None]) & (at < filled[:, None])
    return np.bincount(tokens[on], minlength=size)
