"""Tokenise and pack a corpus once, into a folder that any number of runs can read at random."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ldd_jax.core import storage, writing
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.storage import at
from ldd_jax.data import beam
from ldd_jax.data.corpus import Corpus
from ldd_jax.data.files import MANIFEST
from ldd_jax.data.packing import Packer, entropy
from ldd_jax.data.prepared import (
    FORMAT,
    SPLIT_NAMES,
    TOKENIZER_FOLDER,
    VERSION,
    Codec,
    file_hash,
    shard_name,
)
from ldd_jax.data.splits import Divided
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer

ENGINES = ("local", "beam")
COUNTED = 1024  # rows whose tokens are counted at a time


def prepare(
    data: TextData,
    output: str | os.PathLike,
    *,
    shards: int = 4,
    tokenizer: Tokenizer | None = None,
    entropies: Any = None,
    engine: str = "local",
    options: str = "",
) -> Corpus:
    """Write the rows of `data` as ArrayRecord shards with a manifest; stream, never hold them.

    The folder appears whole at the end or not at all. Its rows are those `data.load()` gives, in
    the same order for any number of shards.

    Args:
      data: what to read and how to pack it.
      output: a folder that is absent or empty.
      shards: files per split (fewer if a split has fewer rows).
      tokenizer: use this one instead of fitting one.
      entropies: (tokens [N, L]) -> nats [N, L] of a model, for patches that follow them.

      engine: "local", or "beam" for many machines (`data.beam`); the files do not depend on it.
      options: of Beam.

    Returns:
      The corpus, opened from the folder.

    Raises:
      UserError: if the output is not empty or cannot be written, or the corpus cannot be read.
    """
    require(1 <= shards <= 99_999, f"shards={shards}; it must be between 1 and 99999")
    require(engine in ENGINES, f"engine {engine!r}; {nearest(engine, ENGINES)}")
    target = at(output).expanduser()
    writing.check_new_folder(target)
    divided = data.divide()
    tokenizer = tokenizer or data.fit(divided)
    try:
        # Many machines see a bucket, and no folder of this one.
        place = _begun if engine == "beam" and storage.in_bucket(target) else writing.new_folder
        with place(target) as working:
            _fill(working, data, tokenizer, divided, shards, engine, options)
            data.beside(working, entropies)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    return dataclasses.replace(data, path=str(target), **data.of_path).load()


@contextlib.contextmanager
def _begun(target: Path) -> Iterator[Path]:
    """A folder in a bucket that is written in its place; its manifest comes last.

    Args:
      target: the folder; what is in it is removed if the block ends badly.
    """
    try:
        yield target
    except BaseException:
        bucket = storage.in_bucket(target)
        assert bucket is not None
        bucket.remove_all()
        raise


def _fill(
    folder: Path,
    data: TextData,
    tokenizer: Tokenizer,
    divided: Divided,
    shards: int,
    engine: str,
    options: str,
) -> None:
    """Tokenizer, shards and manifest."""
    tokenizer.save(folder / TOKENIZER_FOLDER)
    if engine == "beam":
        splits = beam.splits(folder, data, tokenizer, divided, shards, options)
    else:
        documents = dict(zip(SPLIT_NAMES, (divided.train, divided.validation), strict=True))
        splits = {
            name: _write(folder, name, data, tokenizer, read(), shards)
            for name, read in documents.items()
        }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": data.path,
        "fingerprint": divided.fingerprint,
        "note": divided.note,
        "layout": {n: getattr(data, n) for n in data.layout.__dataclass_fields__},
        "record": Codec(layout=data.layout, size=tokenizer.size).described,
        "tokenizer": {
            "folder": TOKENIZER_FOLDER,
            "size": tokenizer.size,
            "digest": tokenizer.digest,
        },
        "splits": splits,
    }
    writing.write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _write(
    folder: Path,
    name: str,
    data: TextData,
    tokenizer: Tokenizer,
    documents: Iterable[str],
    shards: int,
) -> dict[str, Any]:
    """Deal the rows of one split to its shards; return its part of the manifest."""
    from array_record.python.array_record_module import ArrayRecordWriter

    packer, size = Packer(data.layout, tokenizer), tokenizer.size
    codec = Codec(layout=data.layout, size=size)
    counts = np.zeros(size, np.int64)
    waiting: list[np.ndarray] = []

    def count() -> None:
        counts[:] += np.bincount(np.concatenate([*waiting, []]).astype(np.int64), minlength=size)
        waiting.clear()

    records = [0] * shards
    drafts = [folder / f"{name}-{number}.draft" for number in range(shards)]
    with contextlib.ExitStack() as stack:
        writers = []
        for draft in drafts:
            writers.append(ArrayRecordWriter(str(draft), "group_size:1"))
            stack.callback(writers[-1].close)
        for number, row in enumerate(packer.rows(documents)):
            writers[number % shards].write(codec.encode(row))
            records[number % shards] += 1
            waiting.append(row.tokens[: row.filled])
            if len(waiting) == COUNTED:
                count()
    count()
    data.require_rows(name, packer, sum(records))
    used = sum(count > 0 for count in records)
    written = []
    for number, draft in enumerate(drafts):
        if number >= used:
            draft.unlink()
            continue
        path = folder / shard_name(name, number, used)
        draft.rename(path)
        written.append(
            {
                "file": path.name,
                "records": records[number],
                "bytes": path.stat().st_size,
                "sha256": file_hash(path),
            }
        )
    return {
        "documents": packer.documents,
        "tokens": packer.tokens,
        "dropped": packer.dropped,
        "unknown": packer.unknown,
        "unigram_entropy": entropy(counts),
        "shards": written,
    }
