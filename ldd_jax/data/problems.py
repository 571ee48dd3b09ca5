"""Problems of a task as rows: the problem is a prompt, the solution is learned."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, at_least_one, require
from ldd_jax.core.registry import component, register
from ldd_jax.core.storage import at
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.files import numbered_lines
from ldd_jax.data.packing import MOST_PADDING, Layout, token_dtype
from ldd_jax.data.prompted import PromptedRows, scored_counts
from ldd_jax.data.tokenizers import Tokenizer
from ldd_jax.tasks import SEPARATOR, Countdown

Pairs = list[tuple[str, str]]


@register("data", "problems")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemData:
    """Generated problems, or those of JSON lines with keys `input` and `output`.

    Attributes:
      task: what is generated, and what verifies solutions.
      path: JSON lines to train on instead (the published files are such); "" generates.
      validation_path: JSON lines to validate on; needed with `path`.
      train_count: problems generated to train on, or fewer if the split holds fewer.
      validation_count: likewise to validate on.
      seed: of the generator; not of the run, so that all runs see the same problems.
      length: tokens a row: problem, separator, solution, EOS and padding.
    """

    task: Any = component("task", Countdown)
    path: str = ""
    validation_path: str = ""
    train_count: int = 100_000
    validation_count: int = 1_000
    seed: int = 0
    length: int = 64

    of_path: ClassVar[Mapping[str, Any]] = {
        "validation_path": "",
        "train_count": 100_000,
        "validation_count": 1_000,
    }
    """As of `TextData`."""

    def __post_init__(self):
        at_least_one(self, "train_count", "validation_count", "length")
        self.layout  # noqa: B018  validates length

    @property
    def layout(self) -> Layout:
        """How problems become rows."""
        return Layout(length=self.length, mode="padded", pad="eos_in_loss")

    def most_ids(self) -> int:
        """Ids, exactly: those of the task's symbols."""
        return self._tokenizer().size

    def check(self) -> None:
        """Refuse files that are not there.

        Raises:
          UserError: naming the file.
        """
        for path in filter(None, (self.path, self.validation_path)):
            require(at(path).is_file(), f"{path}: no such file")

    def _tokenizer(self) -> Tokenizer:
        return CharacterTokenizer(self.task.symbols + SEPARATOR, needs=("eos", "pad"))

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Generate or read both splits.

        Raises:
          UserError: for a file that cannot be read, or a problem that fits no row.
        """
        del verify
        require(
            bool(self.path) == bool(self.validation_path),
            "data: give path and validation_path together, or neither",
        )
        tokenizer = tokenizer or self._tokenizer()
        pairs = {s: self._pairs(s) for s in ("train", "validation")}
        text = json.dumps(pairs).encode()
        rows = {s: self._rows(found, tokenizer) for s, found in pairs.items()}
        note = "validation problems share none with the training split"
        return self._corpus(tokenizer, rows["train"], rows["validation"], text, note)

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """All problems of the path, as both splits."""
        pairs = read_pairs(at(self.path))
        rows = self._rows(pairs, tokenizer)
        return self._corpus(tokenizer, rows, rows, json.dumps(pairs).encode(), "read whole")

    def _corpus(
        self, tokenizer: Tokenizer, train: PromptedRows, held: PromptedRows, text: bytes, note: str
    ) -> Corpus:
        return Corpus(
            tokenizer=tokenizer,
            train=train,
            validation=held,
            layout=self.layout,
            fingerprint=hashlib.sha256(text).hexdigest()[:16],
            source=self.path or f"{self.task.registered[1]}, seed {self.seed}",
            note=note,
        )

    def _pairs(self, split: str) -> Pairs:
        path = {"train": self.path, "validation": self.validation_path}[split]
        count = {"train": self.train_count, "validation": self.validation_count}[split]
        if path:
            return read_pairs(at(path))[:count]
        return list(self.task.problems(split, count, self.seed))

    def _rows(self, pairs: Pairs, tokenizer: Tokenizer) -> PromptedRows:
        require(
            len(pairs) * self.length <= MOST_PADDING,
            f"{len(pairs):,} problems in rows of {self.length} tokens are mostly padding; give a "
            "smaller data.length",
        )
        tokens = np.full((len(pairs), self.length), tokenizer.pad, token_dtype(tokenizer.size))
        prompt = np.zeros(len(pairs), np.int32)
        total = unknown = 0
        for i, (problem, solution) in enumerate(pairs):
            head = tokenizer.encode(problem + SEPARATOR)
            ids = [*head, *tokenizer.encode(solution), tokenizer.eos]
            require(
                len(ids) <= self.length,
                f"problem {problem!r} with its solution has {len(ids)} tokens, but a row has "
                f"{self.length}; raise data.length",
            )
            tokens[i, : len(ids)] = ids
            prompt[i] = len(head)
            total += len(ids)
            unknown += ids.count(-1 if tokenizer.unknown is None else tokenizer.unknown)
        filled = np.full(len(pairs), self.length, np.int32)  # EOS and padding are learned
        return PromptedRows(
            tokens=tokens,
            prompt=prompt,
            filled=filled,
            documents=len(pairs),
            token_count=total,
            counts=scored_counts(tokens, prompt, filled, tokenizer.size),
            unknown=unknown,
        )


def read_pairs(path: Path) -> Pairs:
    """JSON lines {"input": ..., "output": ...}.

    Raises:
      UserError: naming the file and line.
    """
    found = []
    try:
        for number, line in numbered_lines(str(path)):
            if not line.strip():
                continue
            record = json.loads(line, object_pairs_hook=reading.unique)
            pair = (record["input"], record["output"])
            require(all(isinstance(p, str) for p in pair), f"{path}, line {number}: no text")
            found.append(pair)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}, line {number}: not JSON with keys input and output ({error})"
        ) from error
    require(bool(found), f"{path} holds no problem")
    return found
