"""Text with a class per document: JSON lines or a table with a text and a label column."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools

import numpy as np

from ldd_jax.core.checks import require
from ldd_jax.core.registry import register
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.joined import Joined
from ldd_jax.data.packing import MemoryRows, Packer, collect, entropy
from ldd_jax.data.prepared import is_prepared
from ldd_jax.data.sources import fingerprint, open_source
from ldd_jax.data.splits import Divided, document_hash
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer

Pairs = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledRows(Joined):
    """Rows class after class; each carries the number of its class as `label`, int32."""

    parts: tuple[MemoryRows, ...]

    def __post_init__(self):
        ends = list(itertools.accumulate(len(p) for p in self.parts))
        object.__setattr__(self, "_ends", ends)

    def __len__(self) -> int:
        return self._ends[-1]  # type: ignore[attr-defined]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        label = bisect.bisect_right(self._ends, index)  # type: ignore[attr-defined]
        part = self.parts[label]
        row = part[index - self._ends[label] + len(part)]  # type: ignore[attr-defined]
        return row | {"label": np.asarray(label, np.int32)}

    @property
    def entropy(self) -> float:
        """Entropy of the scored tokens' own distribution, whatever the class, nats a token."""
        return entropy(np.sum([p.counts for p in self.parts], axis=0))


@register("data", "labelled")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledText(TextData):
    """Documents of named classes, each starting a row; a long one gives several of its class.

    Attributes:
      path: JSON lines, Parquet or TFDS, see `sources.open_source`.
      label_field: JSON key, column or feature that names the class, as text.
      classes: all names; the number of a class is its place. model.num_classes is their count.
    """

    path: str = ""
    label_field: str = "label"
    classes: tuple[str, ...] = ()
    mode: str = "padded"
    pad: str = "eos_in_loss"

    def __post_init__(self):
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError(f"classes is {self.classes}; give at least one name, each once")
        if self.max_documents:
            raise ValueError("max_documents does not apply to labelled text")
        if self.path:
            super().__post_init__()

    def divide(self) -> Divided:
        """Refused: prepared folders hold no classes."""
        require(False, "labelled text is read as it is; 'prepare' does not apply")
        raise AssertionError

    def load(self, tokenizer: Tokenizer | None = None, *, verify: bool | None = None) -> Corpus:
        """Read, split by hash (or take `validation_path`), tokenise.

        Raises:
          UserError: for anything that cannot be read, a class that is not listed, or a class
            without documents to train on.
        """
        del verify
        require(bool(self.path), "data.path is empty; give JSON lines with text and label")
        require(not is_prepared(self.path), f"{self.path} is prepared and holds no classes")
        pairs, note = self._split()
        documents = lambda split: (text for text, _ in pairs[split])
        tokenizer = tokenizer or self.tokenizer.fit(
            lambda: documents("train"), needs=self.layout.needs
        )
        rows = {split: self._rows(split, found, tokenizer) for split, found in pairs.items()}
        both = itertools.chain.from_iterable(itertools.chain(pairs["train"], pairs["validation"]))
        return Corpus(
            tokenizer=tokenizer,
            train=rows["train"],
            validation=rows["validation"],
            layout=self.layout,
            fingerprint=hashlib.sha256(fingerprint(both).encode()).hexdigest()[:16],
            source=self.path,
            note=f"{len(self.classes)} classes; {note}",
            classes=self.classes,
        )

    def whole(self, tokenizer: Tokenizer) -> Corpus:
        """All documents of the path; see `TextData.whole`."""
        pairs = self._read(self.path)
        rows = self._rows("validation", pairs, tokenizer)
        return Corpus(
            tokenizer=tokenizer,
            train=rows,
            validation=rows,
            layout=self.layout,
            fingerprint=fingerprint(itertools.chain.from_iterable(pairs)),
            source=self.path,
            note=f"{len(self.classes)} classes; read whole",
            classes=self.classes,
        )

    def _read(self, path: str) -> Pairs:
        texts, labels = (
            open_source(path, field=name, split=self.split).train()
            for name in (self.field, self.label_field)
        )
        found = [(t, c) for t, c in zip(texts, labels, strict=True) if t and not t.isspace()]
        require(bool(found), f"{path} holds no text")
        strange = sorted({c for _, c in found} - set(self.classes))
        require(
            not strange,
            f"{path}: class {', '.join(map(repr, strange[:3]))} is not one of data.classes "
            f"({', '.join(self.classes)})",
        )
        return found

    def _split(self) -> tuple[dict[str, Pairs], str]:
        found = self._read(self.path)
        if self.validation_path:
            held = self._read(self.validation_path)
            return {"train": found, "validation": held}, f"validation from {self.validation_path}"
        limit = int(self.validation_fraction * 2**64)
        side = lambda text: "validation" if document_hash(text) < limit else "train"
        pairs: dict[str, Pairs] = {"train": [], "validation": []}
        for text, label in found:
            pairs[side(text)].append((text, label))
        return pairs, f"validation by document hash, fraction {self.validation_fraction:.3g}"

    def _rows(self, split: str, pairs: Pairs, tokenizer: Tokenizer) -> LabelledRows:
        parts = []
        for name in self.classes:
            packer = Packer(self.layout, tokenizer)
            parts.append(collect(packer, (text for text, label in pairs if label == name)))
            require(
                split != "train" or len(parts[-1]) > 0,
                f"class {name!r} has no row to train on in {self.path}",
            )
        require(
            sum(map(len, parts)) > 0,
            "the validation split is empty; raise data.validation_fraction or give "
            "data.validation_path",
        )
        return LabelledRows(parts=tuple(parts))
