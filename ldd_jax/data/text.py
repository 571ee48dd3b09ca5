"""The text corpus of a run: source, split, tokenizer and layout, chosen by one config section."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import component, register
from ldd_jax.data import unknown
from ldd_jax.data.characters import Characters
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.packing import Layout, MemoryRows, Packer, collect
from ldd_jax.data.prepared import is_prepared, read_prepared
from ldd_jax.data.sources import SPLITS, fingerprint, open_source
from ldd_jax.data.splits import Divided, divide
from ldd_jax.data.tokenizers import Tokenizer

_LAYOUT = tuple(field.name for field in dataclasses.fields(Layout))


@register("data", "text")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TextData:
    """Text from a file, a data set or a prepared folder, as rows of tokens.

    Attributes:
      path: see `sources.open_source`; or a folder that `prepare` wrote, which brings its own
        tokenizer and must have been made with the layout asked for here.
      validation_path: documents to validate on; empty = the source's own validation split if it
        has one, else documents chosen by hash.
      field: JSON key, Parquet column or TFDS feature that holds the text.
      split: what a document of a text file is: "file", "line" or "paragraph".
      validation_fraction: share of the documents chosen by hash.
      tokenizer: fitted on the training documents.
      length: tokens a row.
      mode: "packed" (documents end to end) or "padded" (a document starts a row).
      pad: "ignore" (padding is not corrupted and not scored) or "eos_in_loss" (it is EOS, scored).
      bos: begin each document with BOS.
      eos: end each document with EOS.
      segments: keep attention within the documents of a packed row.
      max_documents: read only so many documents of each source; 0 = all.
    """

    path: str = "python-docs"
    validation_path: str = ""
    field: str = "text"
    split: str = "file"
    validation_fraction: float = 0.05
    tokenizer: Any = component("tokenizer", Characters)
    length: int = 64
    mode: str = "packed"
    pad: str = "ignore"
    bos: bool = False
    eos: bool = True
    segments: bool = False
    max_documents: int = 0

    of_path: ClassVar[Mapping[str, Any]] = {"validation_path": "", "max_documents": 0}
    """Fields that belong to the path, and what they are for another one."""

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r}; {nearest(self.split, SPLITS)}")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction={self.validation_fraction}; it must be between 0 and 1"
            )
        if self.max_documents < 0:
            raise ValueError(f"max_documents={self.max_documents}; it must be 0 (all) or more")
        self.layout  # noqa: B018  validates length, mode and pad

    @property
    def layout(self) -> Layout:
        """How token streams become rows."""
        return Layout(**{name: getattr(self, name) for name in _LAYOUT})

    def most_ids(self) -> int:
        """Ids that the tokenizer will have at most; no document is read.

        Raises:
          UserError: for a tokenizer file that cannot be read.
        """
        if is_prepared(self.path):
            return read_prepared(self.path, verify=False).tokenizer.size
        return self.tokenizer.most_ids(self.layout.needs)

    def check(self) -> None:
        """Refuse paths that are not there; no document is read.

        Raises:
          UserError: naming the path.
        """
        for path in (self.path, *filter(None, [self.validation_path])):
            if not is_prepared(path):
                open_source(path, field=self.field, split=self.split)

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Read, split, tokenise and pack the corpus.

        Args:
          tokenizer: use this one (of an earlier run) instead of fitting one.
          verify: hash the shards of a prepared folder; see `prepared.read_prepared`.

        Raises:
          UserError: for anything that cannot be read, or is shorter than one row.
        """
        if is_prepared(self.path):
            return self._prepared(tokenizer, verify)
        divided = self.divide()
        tokenizer = tokenizer or self.fit(divided)
        rows = {}
        for name, documents in (("train", divided.train), ("validation", divided.validation)):
            rows[name] = self._collect(name, Packer(self.layout, tokenizer), documents)
        return Corpus(
            tokenizer=tokenizer,
            train=rows["train"],
            validation=rows["validation"],
            layout=self.layout,
            fingerprint=divided.fingerprint,
            source=self.path,
            note=divided.note,
        )

    def beside(self, folder: Path, entropies: Any) -> None:
        """What `prepare` writes beside the rows of `folder`: nothing here.

        `entropies` of a model are for data that need them (`data.patched`).
        """
        del folder, entropies

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """All documents of the path as one corpus, which is both of its splits.

        What has splits of its own (a prepared folder, a TFDS data set with a validation split)
        keeps them.

        Raises:
          UserError: as `load`.
        """
        if is_prepared(self.path):
            return self.load(tokenizer)
        source = open_source(self.path, field=self.field, split=self.split)
        if source.validation is not None:
            return self.load(tokenizer)
        rows = self._collect("whole", Packer(self.layout, tokenizer), source.documents)
        return Corpus(
            tokenizer=tokenizer,
            train=rows,
            validation=rows,
            layout=self.layout,
            fingerprint=fingerprint(source.documents()),
            source=self.path,
            note="read whole",
        )

    def divide(self) -> Divided:
        """Training and validation documents."""
        require(
            not is_prepared(self.path), f"{self.path} is prepared already; its texts are not kept"
        )
        source = open_source(self.path, field=self.field, split=self.split)
        validation = None
        if self.validation_path:
            validation = open_source(self.validation_path, field=self.field, split=self.split)
        return divide(
            source,
            validation,
            fraction=self.validation_fraction,
            max_documents=self.max_documents,
        )

    def fit(self, divided: Divided) -> Tokenizer:
        """The tokenizer, fitted on the training documents."""
        return self.tokenizer.fit(divided.train, needs=self.layout.needs)

    def _collect(
        self, name: str, packer: Packer, documents: Callable[[], Iterable[str]]
    ) -> MemoryRows:
        rows = collect(packer, documents())
        self.require_rows(name, packer, len(rows))
        return rows

    def require_rows(self, name: str, packer: Packer, rows: int) -> None:
        """Refuse a split that fills no row, or of which too much is unknown.

        `name` is that of the split, `packer` has read it, into so many `rows`.
        """
        share = unknown.share(packer.unknown, packer.tokens)
        unknown.refuse(share, packer.tokenizer, f"the {name} split of {self.path}")
        if rows:
            return
        more = {
            "train": "give a longer text",
            "whole": "give a longer text",
            "validation": "raise data.validation_fraction or give data.validation_path",
        }[name]
        raise UserError(
            f"the {name} {'text' if name == 'whole' else 'split'} of {self.path} has "
            f"{packer.tokens} tokens, fewer than one row of length={self.length}; {more}"
            + (f", or set data.length to at most {packer.tokens}" if packer.tokens else "")
        )

    def _prepared(self, tokenizer: Tokenizer | None, verify: bool | None) -> Corpus:
        """The corpus of a prepared folder, if it is the one this section describes."""
        for name in ("validation_path", "max_documents"):
            require(
                not getattr(self, name),
                f"data.{name} does not apply to the prepared folder {self.path}; clear it",
            )
        found = read_prepared(self.path, verify=verify)
        differing = [
            f"{name}={getattr(found.layout, name)!r} (not {getattr(self, name)!r})"
            for name in _LAYOUT
            if getattr(found.layout, name) != getattr(self, name)
        ]
        require(
            not differing,
            f"{self.path} was prepared with {', '.join(differing)}; set data accordingly or "
            "prepare it again",
        )
        require(
            tokenizer is None or tokenizer.digest == found.tokenizer.digest,
            f"{self.path} was prepared with another tokenizer than this run's; prepare it with the "
            "run's tokenizer",
        )
        return Corpus(
            tokenizer=found.tokenizer,
            train=found.rows["train"],
            validation=found.rows["validation"],
            layout=found.layout,
            fingerprint=found.fingerprint,
            source=self.path,
            note=found.note,
        )
