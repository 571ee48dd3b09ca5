"""Prepared corpora on disk: tokenised rows in sharded ArrayRecord files beside a manifest.

Row i is record i // n of shard i % n, so that the order of rows does not depend on the number of
shards n. A record is the row's tokens (two or four bytes each, little-endian), the number of
positions that count (four bytes), and its segments (two or four bytes each) where they are used;
the manifest states it under `record`, so that others can read the shards.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ldd_jax.core import reading
from ldd_jax.core.checks import RunError, UserError, require
from ldd_jax.core.storage import at, local
from ldd_jax.data.encoding import token_dtype
from ldd_jax.data.files import MANIFEST
from ldd_jax.data.packing import Layout, Row, example
from ldd_jax.data.tokenizers import Tokenizer, load_tokenizer

FORMAT, VERSION = "ldd_jax.prepared", 1
TOKENIZER_FOLDER = "tokenizer"
SPLIT_NAMES = ("train", "validation")
_SHARD = re.compile(r"(train|validation)-\d{5}-of-\d{5}\.array_record")
_CHEAP = 1 << 30


def is_prepared(path: str | os.PathLike) -> bool:
    """Whether `path` is a folder with a manifest."""
    return bool(path) and (at(path).expanduser() / MANIFEST).is_file()


def shard_name(split: str, number: int, total: int) -> str:
    """`train-00000-of-00004.array_record`.

    Of a `split`, file `number`, from 0, of `total`.
    """
    return f"{split}-{number:05d}-of-{total:05d}.array_record"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codec:
    """Rows to bytes and back.

    Attributes:
      layout: how the rows were made.
      size: number of token ids.
    """

    layout: Layout
    size: int

    @functools.cached_property
    def record(self) -> np.dtype:
        """A record: tokens [L], how many of them count, and segments [L] where they are used."""
        length = (self.layout.length,)
        fields: list[Any] = [("tokens", token_dtype(self.size), length), ("filled", "<u4")]
        if self.layout.has_segments:
            fields.append(("segment", "<u2" if self.layout.length < 1 << 16 else "<u4", length))
        return np.dtype(fields)

    @property
    def described(self) -> list[list[Any]]:
        """The record for the manifest: name, numpy type and shape of every field, in order."""
        fields = ((n, self.record[n]) for n in self.record.names or ())
        return [[n, f.base.str, list(f.shape)] for n, f in fields]

    def encode(self, row: Row) -> bytes:
        """The record of a row."""
        values = {"tokens": row.tokens, "filled": row.filled, "segment": row.segment}
        record = np.zeros((), self.record)
        for name in self.record.names or ():
            record[name] = values[name]
        return record.tobytes()

    def decode(self, record: bytes) -> dict[str, np.ndarray]:
        """The row of a record, as the pipeline reads it."""
        kind = self.record
        require(
            len(record) == kind.itemsize,
            f"a record has {len(record)} bytes, expected {kind.itemsize}; it is damaged",
        )
        row = np.frombuffer(record, kind)[0]
        tokens, filled = row["tokens"], int(row["filled"])
        length = self.layout.length
        require(filled <= length, f"a record fills {filled} of {length} places; it is damaged")
        # A gather on a device would take some other token's row without a word.
        require(
            int(tokens.max()) < self.size,
            f"a record holds token {int(tokens.max())}, but there are {self.size}; it is damaged",
        )
        return example(tokens, filled, row["segment"] if self.layout.has_segments else None)


class PreparedRows:
    """Rows of one split on disk; opened on first use.

    Attributes:
      documents, token_count, dropped: see `packing.Packer`; unknown too, None in older folders.
      entropy: of the scored tokens' own distribution, nats a token.
    """

    def __init__(self, folder: Path, codec: Codec, split: dict[str, Any]):
        self._paths = [folder / shard["file"] for shard in split["shards"]]
        records = [shard["records"] for shard in split["shards"]]
        self._starts = np.concatenate([[0], np.cumsum(records)])[:-1]
        self._rows = sum(records)
        self._codec = codec
        self._source: Any = None
        self.documents, self.token_count = split["documents"], split["tokens"]
        self.dropped, self.entropy = split["dropped"], split["unigram_entropy"]
        self.unknown: int | None = split["unknown"]

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not -self._rows <= index < self._rows:
            raise IndexError(f"row {index} of {self._rows}")
        index = int(index) % self._rows
        shards = len(self._paths)
        record = self._record(int(self._starts[index % shards]) + index // shards)
        try:
            return self._codec.decode(record)
        except UserError as error:
            raise UserError(f"{self._paths[index % shards]}: {error}; run prepare again") from error

    def _record(self, number: int) -> bytes:
        """A record by its number among those of all shards.

        Raises:
          RunError: if its shard has gone or is not what it was when the run began.
        """
        try:
            if self._source is None:
                from grain.sources import ArrayRecordDataSource

                self._source = ArrayRecordDataSource([str(local(p)) for p in self._paths])
            return self._source[number]
        except (RuntimeError, ValueError, IndexError, OSError) as error:  # Riegeli's, by text
            raise RunError(
                f"cannot read {self._paths[0].parent}: {str(error)[:300]}; put the shards "
                "back, the same command goes on from the newest checkpoint"
            ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared folder, opened.

    Attributes:
      tokenizer: the one its rows were made with.
      layout: how they were made.
      rows: by split name.
      fingerprint: of the documents.
      note: where the validation documents came from.
      source: the path they were read from.
    """

    tokenizer: Tokenizer
    layout: Layout
    rows: dict[str, PreparedRows]
    fingerprint: str
    note: str
    source: str


def read_prepared(folder: str | os.PathLike, *, verify: bool | None = None) -> Prepared:
    """Open what `prepare` wrote.

    Args:
      folder: the output folder.
      verify: recompute every shard's SHA-256; None = if the shards are below 1 GiB together. Sizes
        are always compared.

    Raises:
      UserError: if the manifest is of another version or damaged, or a shard is missing or changed.
    """
    root = at(folder).expanduser()
    path = root / MANIFEST
    try:
        manifest = reading.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of a prepared corpus")
    version = manifest.get("version")
    if version != VERSION:
        raise UserError(
            f"{path} has version {version!r}, this library reads {VERSION}; run prepare again"
        )
    try:
        layout = Layout(**manifest["layout"])
        stated = manifest["tokenizer"]
        splits = {name: _split(manifest["splits"][name], name, path) for name in SPLIT_NAMES}
        words = {key: str(manifest[key]) for key in ("fingerprint", "note", "source")}
        size, digest = int(stated["size"]), str(stated["digest"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    tokenizer = load_tokenizer(root / TOKENIZER_FOLDER)
    require(
        (tokenizer.size, tokenizer.digest) == (size, digest),
        f"{root / TOKENIZER_FOLDER} is not the tokenizer that {path} names",
    )
    _check_shards(root, [shard for split in splits.values() for shard in split["shards"]], verify)
    codec = Codec(layout=layout, size=size)
    require(
        manifest.get("record", codec.described) == codec.described,
        f"{path} describes other records than this library reads; run prepare again",
    )
    rows = {name: PreparedRows(root, codec, split) for name, split in splits.items()}
    return Prepared(tokenizer=tokenizer, layout=layout, rows=rows, **words)


def _split(split: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """One split of the manifest with its types checked."""
    checked: dict[str, Any] = {k: int(split[k]) for k in ("documents", "tokens", "dropped")}
    checked["unknown"] = int(split["unknown"]) if "unknown" in split else None
    checked["unigram_entropy"] = float(split["unigram_entropy"])
    shards = split["shards"]
    total = len(shards)
    checked["shards"] = [
        {"file": s["file"], "records": int(s["records"]), "bytes": int(s["bytes"]),
         "sha256": str(s["sha256"])}
        for s in shards
    ]  # fmt: skip
    for number, shard in enumerate(checked["shards"]):
        file = shard["file"]
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise UserError(f"{path} names a shard {file!r}; a plain shard name was expected")
        require(
            file == shard_name(name, number, total),
            f"{path}: shard {number} of {name} is named {file}",
        )
    records = [s["records"] for s in checked["shards"]]
    rows = sum(records)
    dealt = [math.ceil((rows - number) / max(total, 1)) for number in range(total)]
    require(records == dealt and rows > 0, f"{path}: record counts {records} do not fit together")
    return checked


def _check_shards(root: Path, shards: list[dict[str, Any]], verify: bool | None) -> None:
    """Compare sizes, and hashes where asked or cheap."""
    if verify is None:
        verify = sum(shard["bytes"] for shard in shards) < _CHEAP
    for shard in shards:
        file = root / shard["file"]
        require(file.is_file(), f"{file} is missing; run prepare again")
        size = file.stat().st_size
        require(
            size == shard["bytes"],
            f"{file} has {size} bytes, its manifest says {shard['bytes']}; run prepare again",
        )
        require(
            not verify or file_hash(file) == shard["sha256"],
            f"{file} does not have the hash its manifest states; run prepare again",
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with reading.opened(local(path)) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
