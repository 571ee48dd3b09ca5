"""Where bytes are cut into patches (BLT, arXiv 2412.09871), and hence what costs one latent row.

A rule says of every position whether a patch starts there, as a function of the bytes before it
only: a left-to-right model can use it without knowing more than it may.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ldd_jax.core.checks import nearest
from ldd_jax.core.registry import register

# (tokens [N, L]) -> [N, L], entropy in nats of the token after each position.
Entropies = Callable[[np.ndarray], np.ndarray]
RULES = ("global", "monotone", "combined")
WORD = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
PUBLISHED = 1.3354  # nats, BLT's default threshold


def capped(starts: np.ndarray, longest: int) -> np.ndarray:
    """Longer patches are cut every `longest` positions, from their start on.

    Args:
      starts: [N, L], True where a patch starts.
      longest: positions of a patch at most; 0 = any number.
    """
    if not longest:
        return starts
    out, since = starts.copy(), np.zeros(len(starts), np.int64)
    for i in range(starts.shape[1]):
        out[:, i] |= since == longest
        since = np.where(out[:, i], 1, since + 1)
    return out


def by_entropy(
    entropy: np.ndarray, rule: str = "global", threshold: float = PUBLISHED, rise: float = 0.5
) -> np.ndarray:
    """Starts where the byte was hard to foresee: arXiv 2412.09871, section 2.3, corrected.

    global: H[i-1] > threshold. monotone: H[i-1] - H[i-2] > rise. combined: both. The published code
    makes bytes 1 and 2 start whatever their entropy and, in the combined rule, forbids byte 3; here
    position 0 starts and every other follows the rule (H before the row counts as 0; the combined
    rule asks no rise of position 1).

    Args:
      entropy: H [N, L], nats; H[i] belongs to the byte at i + 1, so the last one is not used.
      rule: global, monotone or combined.
      threshold: nats.
      rise: nats.

    Returns:
      bool [N, L].
    """
    before = np.pad(entropy[:, :-1], ((0, 0), (1, 0)))
    rose = before - np.pad(entropy[:, :-2], ((0, 0), (2, 0))) > rise
    high = before > threshold
    first = np.arange(entropy.shape[1]) == 1
    starts = {"global": high, "monotone": rose, "combined": high & (rose | first)}[rule]
    starts[:, 0] = True
    return starts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patches:
    """What all rules share.

    Attributes:
      longest: positions of a patch at most, longer ones are cut; 0 = any number.
      most: patches of a row at most, the last takes what is left; 0 = any number. The network's
        `patches` is at least this.
    """

    longest: int = 0
    most: int = 0

    learned: ClassVar[bool] = False
    """Whether a model's entropies are needed."""

    def __post_init__(self):
        for name in ("longest", "most"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; 0 = any number, or how many")

    def begin(self, tokens: np.ndarray, entropies: Entropies | None) -> np.ndarray:
        """The rule itself, before `longest` and `most`: bool [N, L]."""
        raise TypeError(f"{type(self).__name__} defines no starts")

    def starts(self, tokens: np.ndarray, entropies: Entropies | None = None) -> np.ndarray:
        """1 where a patch starts, uint8 [N, L]; position 0 always does.

        Args:
          tokens: ids of bytes, [N, L].
          entropies: of the model, where `learned`.
        """
        starts = self.begin(tokens, entropies)
        starts[:, 0] = True
        starts = capped(starts, self.longest)
        if self.most:
            starts &= np.cumsum(starts, axis=1) <= self.most
        return starts.astype(np.uint8)


def numbers(starts: np.ndarray) -> np.ndarray:
    """The number of each position's patch from its starts, int32, along the last axis."""
    return np.cumsum(starts, axis=-1, dtype=np.int32) - 1


@register("patches", "static")
@dataclasses.dataclass(frozen=True, kw_only=True)
class StaticPatches(Patches):
    """Every `size` positions."""

    size: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"size is {self.size}; a patch has at least 1 position")

    def begin(self, tokens: np.ndarray, entropies: Entropies | None = None) -> np.ndarray:
        """Multiples of the size."""
        del entropies
        return np.broadcast_to(np.arange(tokens.shape[1]) % self.size == 0, tokens.shape).copy()


@register("patches", "space")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SpacePatches(Patches):
    """After the byte that ends a word: the first that is no letter, digit or part of a character.

    Letters of other alphabets are UTF-8 characters of several bytes, which all belong to a word.
    For tokenizer bytes; ids from 256 on (end of text) end a word too.
    """

    longest: int = 16

    def begin(self, tokens: np.ndarray, entropies: Entropies | None = None) -> np.ndarray:
        """Where a word's byte follows another kind."""
        del entropies
        byte = np.arange(256)
        letter = np.isin(byte, np.frombuffer(WORD, np.uint8)) | (byte >= 128)
        word = np.where(tokens < 256, letter[np.minimum(tokens, 255)], False)
        # Only what stands before a position may decide: a patch starts once a word has ended.
        ended = np.pad(~word[:, :-1], ((0, 0), (1, 0)))
        again = np.pad(~word[:, :-2], ((0, 0), (2, 0)))
        return ended & ~again


@register("patches", "entropy")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EntropyPatches(Patches):
    """Where a small left-to-right model of the same bytes was uncertain of what comes.

    Attributes:
      rule: global, monotone or combined (`by_entropy`).
      threshold: nats; of global and combined: a patch starts where the entropy is larger.
      rise: nats; of monotone and combined: by how much it has grown within one byte.
      model: workdir of a model trained with method=ar on the same tokenizer.
    """

    rule: str = "global"
    threshold: float = PUBLISHED
    rise: float = 0.5
    model: str = ""

    learned = True

    def __post_init__(self):
        super().__post_init__()
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r}; {nearest(self.rule, RULES)}")

    def begin(self, tokens: np.ndarray, entropies: Entropies | None = None) -> np.ndarray:
        """By the model's entropies.

        Raises:
          ValueError: without them.
        """
        if entropies is None:
            raise ValueError("entropy patches need the entropies of a model")
        return by_entropy(entropies(tokens), self.rule, self.threshold, self.rise)
