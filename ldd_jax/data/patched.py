"""Text whose rows carry the patch of each token, by rule or from what was stored at preparation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ldd_jax.core import reading, writing
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.registry import component, register, section
from ldd_jax.core.storage import at, local
from ldd_jax.data.beside import Beside
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.patches import Entropies, Patches, SpacePatches, numbers
from ldd_jax.data.prepared import SPLIT_NAMES, is_prepared, read_prepared
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer

PATCHES = "patches.json"
_BLOCK = 1 << 18  # tokens that a model is given at a time


@dataclasses.dataclass(frozen=True)
class PatchedRows(Beside):
    """Rows of a split, each with `unit`, the number of every position's patch, int32 [L].

    Attributes:
      patches: the rule.
      stored: starts of all rows, uint8 [N, L]; None = the rule is asked row by row.
    """

    patches: Patches
    stored: np.ndarray | None = None

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.rows[index]
        if self.stored is None:
            starts = self.patches.starts(row["tokens"][None])[0]
        else:
            starts = np.asarray(self.stored[index])
        return row | {"unit": numbers(starts)}


@register("data", "patched")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchedText(TextData):
    """Text in patches; `prepare` stores where they start, and has to where a model decides it."""

    patches: Any = component("patches", SpacePatches)

    def __post_init__(self):
        super().__post_init__()
        if self.layout.has_segments:
            raise ValueError(
                "patches go on over the end of a document; set data.segments False and "
                "data.mode packed (or data.pad eos_in_loss)"
            )

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """As `TextData.load`, with patches.

        Raises:
          UserError: where a model decides and nothing is stored, or for what cannot be read.
        """
        return self._patched(super().load(tokenizer, verify=verify))

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """As `TextData.whole`, with patches."""
        corpus = super().whole(tokenizer)
        same = isinstance(corpus.train, PatchedRows)  # of a source that has its own splits
        return corpus if same else self._patched(corpus)

    def beside(self, folder: Path, entropies: Entropies | None) -> None:
        """Store the starts of a folder's rows: one byte a token and a record of the rule.

        Args:
          folder: with shards and manifest.
          entropies: of the rule's model, where it has one.
        """
        found = read_prepared(folder, verify=False)
        splits = {}
        for name in SPLIT_NAMES:
            rows, length = found.rows[name], self.length
            block = max(1, _BLOCK // length)
            digest, patches = hashlib.sha256(), 0
            with writing.replacing(folder / _file(name), binary=True) as stream:
                for first in range(0, len(rows), block):
                    some = range(first, min(first + block, len(rows)))
                    tokens = np.stack([rows[i]["tokens"] for i in some])
                    starts = self.patches.starts(tokens, entropies)
                    patches += int(starts.sum())
                    digest.update(starts.tobytes())
                    stream.write(starts.tobytes())
            splits[name] = {"rows": len(rows), "patches": patches, "sha256": digest.hexdigest()}
        record = {"rule": section(self.patches).to_dict(), "length": self.length, "splits": splits}
        writing.write(folder / PATCHES, json.dumps(record, indent=1) + "\n")

    def _patched(self, corpus: Corpus) -> Corpus:
        stored = self._stored(corpus) if is_prepared(self.path) else {}
        require(
            bool(stored) or not self.patches.learned,
            f"patches by entropy come from a model, once: python -m ldd_jax prepare the text with "
            f"this config, then set data.path to that folder (not {self.path})",
        )
        train = PatchedRows(corpus.train, self.patches, stored.get("train"))
        alone = corpus.validation is corpus.train
        other = PatchedRows(corpus.validation, self.patches, stored.get("validation"))
        return dataclasses.replace(corpus, train=train, validation=train if alone else other)

    def _stored(self, corpus: Corpus) -> dict[str, np.ndarray]:
        """Starts by split, mapped from the folder; nothing where none are needed or stored.

        Raises:
          UserError: if they are of another rule, or damaged.
        """
        folder = at(self.path).expanduser()
        if not (folder / PATCHES).is_file():
            return {}
        try:
            record = reading.read_json(folder / PATCHES)
            rule, length, splits = dict(record["rule"]), record["length"], record["splits"]
            rows = {name: int(splits[name]["rows"]) for name in SPLIT_NAMES}
            digests = {name: str(splits[name]["sha256"]) for name in SPLIT_NAMES}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / PATCHES} is damaged; run prepare again") from error
        mine = section(self.patches).to_dict()
        differing = sorted(k for k in mine if k != "model" and mine[k] != rule.get(k))
        require(
            not differing,
            f"{self.path} was prepared with other patches ("
            + ", ".join(f"{k}={rule.get(k)!r}, not {mine[k]!r}" for k in differing)
            + "); set data.patches accordingly or prepare it again",
        )
        found: dict[str, np.ndarray] = {}
        for name in SPLIT_NAMES:
            path, shape = folder / _file(name), (rows[name], self.length)
            whole = length == self.length and rows[name] == len(corpus.rows(name))
            whole = whole and path.is_file() and not path.is_symlink()
            require(
                whole and path.stat().st_size == shape[0] * shape[1],
                f"{path} does not fit the rows beside it; run prepare again",
            )
            found[name] = np.memmap(local(path), np.uint8, "r", shape=shape)
            require(
                hashlib.sha256(found[name].data).hexdigest() == digests[name],
                f"{path} is not what prepare wrote; run prepare again",
            )
        return found


def _file(split: str) -> str:
    return f"patches-{split}.u8"
