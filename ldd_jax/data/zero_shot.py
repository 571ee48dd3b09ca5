"""Data sets of a zero-shot table, each with everything that its number depends on, from a manifest.

A manifest is a JSON file, {"datasets": [{"name", "path", "detokenizer", "packing", "bos", "eos",
and perhaps "split", "field", "sha256"}, ...]}; paths are relative to it. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.detokenizers import DETOKENIZERS, VERSION
from ldd_jax.data.packing import Layout, Packer, collect
from ldd_jax.data.sources import SPLITS, fingerprint, open_source
from ldd_jax.data.tokenizers import Tokenizer

# wrap: documents end to end, the remainder dropped. document: each begins a row, the rest is not
# scored and not attended to.
PACKING = {"wrap": "packed", "document": "padded"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """One entry; `digest` is the SHA-256 of its file (of names and files, for a folder)."""

    name: str
    path: str
    detokenizer: str
    packing: str
    bos: bool
    eos: bool
    split: str = "line"
    field: str = "text"
    sha256: str = ""
    files: tuple[Path, ...] = ()
    digest: str = ""

    def documents(self) -> Iterator[str]:
        """Its texts as people write them."""
        undo = DETOKENIZERS[self.detokenizer]
        for file in self.files:
            source = open_source(str(file), field=self.field, split=self.split)
            yield from map(undo, source.documents())

    def load(self, tokenizer: Tokenizer, length: int) -> Corpus:
        """Rows of a run's length in its tokens; both splits of the corpus are the whole of it.

        Raises:
          UserError: for a text shorter than one row, or a tokenizer without BOS or EOS asked for.
        """
        layout = Layout(length=length, mode=PACKING[self.packing], bos=self.bos, eos=self.eos)
        packer = _Rows(layout, tokenizer)
        rows = collect(packer, self.documents())
        require(
            len(rows) > 0,
            f"zero-shot data set {self.name!r} has {packer.tokens} tokens, fewer than one row of "
            f"{length}; pack it by document",
        )
        return Corpus(
            tokenizer=tokenizer,
            train=rows,
            validation=rows,
            layout=layout,
            fingerprint=fingerprint(self.documents()),
            source=self.name,
            note=f"{self.detokenizer} detokenizer, packing {self.packing}",
        )

    def record(self, corpus: Corpus) -> dict[str, Any]:
        """JSON fields: everything but the model that the number depends on, and its fingerprint."""
        rows = corpus.validation
        policy = {
            "dataset": self.name,
            "sha256": self.digest,
            "detokenizer": self.detokenizer,
            "detokenizer_version": VERSION,
            "packing": self.packing,
            "bos": self.bos,
            "eos": self.eos,
            "split_into": self.split,
            "field": self.field,
            "length": corpus.layout.length,
            "tokenizer": corpus.tokenizer.digest,
            "texts": corpus.fingerprint,
        }
        key = hashlib.sha256(repr(sorted(policy.items())).encode()).hexdigest()[:16]
        counted = {"documents": rows.documents, "dropped_tokens": rows.dropped}
        return policy | {"data_fingerprint": key} | counted


class _Rows(Packer):
    """Padding of rows by document is neither scored nor seen, so it needs no token of its own."""

    def __init__(self, layout: Layout, tokenizer: Tokenizer):
        super().__init__(dataclasses.replace(layout, mode="packed"), tokenizer)
        self.layout = layout


def read_manifest(path: Path) -> list[Dataset]:
    """The data sets of a manifest, all there and with the hashes it states.

    Raises:
      UserError: for what is no manifest, a file that is not there, or one that has changed.
    """
    try:
        found = reading.read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--zero_shot={path} cannot be read: {reason}") from error
    entries = found.get("datasets") if isinstance(found, dict) else None
    require(
        isinstance(entries, list) and bool(entries),
        f'--zero_shot={path}: expected {{"datasets": [...]}} with at least one entry',
    )
    out = [_entry(path, i, entry) for i, entry in enumerate(entries, 1)]  # type: ignore[arg-type]
    names = [d.name for d in out]
    twice = sorted({n for n in names if names.count(n) > 1})
    require(not twice, f"--zero_shot={path}: {', '.join(twice)} stands there twice")
    return out


def _entry(manifest: Path, number: int, entry: Any) -> Dataset:
    where = f"--zero_shot={manifest}, data set {number}"
    require(isinstance(entry, dict), f"{where} is {type(entry).__name__}, expected an object")
    fields = {f.name: f for f in dataclasses.fields(Dataset) if f.name not in ("files", "digest")}
    for key, value in entry.items():
        require(key in fields, f"{where}: no field {key!r}; {nearest(key, fields)}")
        kind = bool if key in ("bos", "eos") else str
        require(type(value) is kind, f"{where}: {key} is {value!r}; expected {kind.__name__}")
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in entry]
    require(not missing, f"{where} lacks {', '.join(missing)}")
    for key, allowed in (("detokenizer", DETOKENIZERS), ("packing", PACKING), ("split", SPLITS)):
        value = entry.get(key, "line")
        require(value in allowed, f"{where}: {key} {value!r}; {nearest(value, allowed)}")
    target = manifest.parent / entry["path"]
    files = sorted(f for f in target.iterdir() if f.is_file()) if target.is_dir() else [target]
    require(bool(files), f"{where}: {entry['path']} is an empty folder")
    digest = hashlib.sha256()
    try:
        for file in files:
            with reading.opened(file) as stream:
                own = hashlib.file_digest(stream, "sha256")
            digest.update(f"{file.name}\0{own.hexdigest()}\n".encode())
    except OSError as error:
        raise UserError(f"{where}: {entry['path']}: {error.strerror}") from error
    told = digest.hexdigest() if target.is_dir() else own.hexdigest()
    wanted = entry.get("sha256", "")
    require(
        wanted in ("", told),
        f"{where} ({entry['name']}): {entry['path']} has SHA-256 {told}, the manifest says "
        f"{wanted}; it is another version of the data",
    )
    return Dataset(**entry, files=tuple(files), digest=told)
