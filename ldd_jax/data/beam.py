"""`prepare` by Apache Beam (extra `beam`): the same shards and manifest, encoded on many machines.

Every file of the source is a piece of work. Its documents are encoded once; where its rows begin
follows from the lengths of the files before, which are small; rows that lie over two files are put
together, and each shard sorts and writes its own. Deciding which documents validate, and the
fingerprint, stay one pass over the text of the machine that asks.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ldd_jax.core import storage, writing
from ldd_jax.core.checks import RunError, UserError, one_line, require
from ldd_jax.data import encoding
from ldd_jax.data.files import find_files
from ldd_jax.data.packing import Layout, Row, entropy
from ldd_jax.data.prepared import SPLIT_NAMES, Codec, file_hash, shard_name
from ldd_jax.data.sources import read_file
from ldd_jax.data.splits import Divided, document_hash
from ldd_jax.data.text import TextData
from ldd_jax.data.tokenizers import Tokenizer, load_tokenizer

TOTALS = "totals.json"
TOGETHER = 1 << 20  # tokens of an element


@dataclasses.dataclass(frozen=True)
class Work:
    """What a worker knows: where the tokenizer is, how texts are read, cut and dealt out.

    limit: documents whose hash is below it validate; None = the sources are apart.
    """

    folder: str
    tokenizer: str
    layout: Layout
    field: str
    split: str
    limit: int | None
    shards: int


Unit = tuple[str, int, str]  # split (or "", where hashes tell), number, file


def units(data: TextData, divided: Divided) -> list[Unit]:
    """The files of a source, in its order.

    Raises:
      UserError: for what is not files, or one document.
    """
    require(
        divided.limit != 0 and not data.max_documents,
        "--engine=beam deals out whole files: one single document, and data.max_documents, are "
        "prepared here (--engine=local)",
    )
    apart = divided.limit is None
    require(
        not apart or bool(data.validation_path),
        f"--engine=beam reads files; {data.path} is prepared here (--engine=local)",
    )
    sides = [("train" if apart else "", data.path)]
    sides += [("validation", data.validation_path)] if apart else []
    found = [(side, file) for side, path in sides for file in find_files(path, "")]
    return [(side, number, file) for number, (side, file) in enumerate(found)]


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Tokenizer:
    return load_tokenizer(folder)


def encode(unit: Unit, work: Work) -> Iterator[Any]:
    """The documents of a file: blocks of ids by split, and at the end how much there was.

    Args:
      unit: the file.
      work: of all.

    Yields:
      (split, unit, place, document, ids, lengths), ids and lengths as bytes; place and document
      count from the file's beginning, place in tokens, or rows where documents begin rows. Last
      ("sizes", split, unit, documents, tokens, rows, unknown) of each split.
    """
    side, number, file = unit
    tokenizer, length = _tokenizer(work.tokenizer), work.layout.length
    texts = (t for t in read_file(file, work.field, work.split) if t and not t.isspace())
    of = lambda text: side or SPLIT_NAMES[document_hash(text) < (work.limit or 0)]
    seen = {name: dict(documents=0, tokens=0, rows=0, unknown=0) for name in SPLIT_NAMES}
    for batch in encoding.grouped(texts):
        found = encoding.here(work.layout, tokenizer, batch)
        for name in SPLIT_NAMES:
            total = seen[name]
            own = [ids for text, ids in zip(batch, found, strict=True) if of(text) == name]
            total["unknown"] += sum(ids.unknown for ids in own)
            kept = [ids.tokens for ids in own if len(ids.tokens)]
            if not kept:
                continue
            lengths = np.asarray([len(t) for t in kept], "<i8")
            place = total["tokens" if work.layout.mode == "packed" else "rows"]
            block = np.concatenate(kept).tobytes(), lengths.tobytes()
            yield name, number, place, total["documents"], *block
            total["documents"] += len(kept)
            total["tokens"] += int(lengths.sum())
            total["rows"] += int((-(-lengths // length)).sum())
    for name, total in seen.items():
        yield "sizes", name, number, *(total[n] for n in ("documents", "tokens", "rows", "unknown"))


def totals(sizes: Iterable[Sequence[Any]], layout: Layout) -> dict[str, Any]:
    """By split: sums, rows, and what stands before each file.

    Args:
      sizes: ("sizes", split, unit, documents, tokens, rows, unknown) of all files.
      layout: of the rows.
    """
    out: dict[str, Any] = {}
    for name in SPLIT_NAMES:
        own = sorted(tuple(s[2:]) for s in sizes if s[1] == name)
        sums = np.cumsum([[0] * 4, *(s[1:] for s in own)], axis=0).tolist()
        documents, tokens, rows, unknown = sums[-1]
        packed = layout.mode == "packed"
        out[name] = {
            "documents": documents,
            "tokens": tokens,
            "unknown": unknown,
            "rows": tokens // layout.length if packed else rows,
            "dropped": tokens % layout.length if packed else 0,
            "before": {unit: before[:3] for (unit, *_), before in zip(own, sums)},
        }
    return out


Piece = tuple[int, bytes, bytes]  # place in a row, ids, numbers of their documents


def cut(block: Sequence[Any], known: dict[str, Any], work: Work) -> Iterator[tuple[Any, Piece]]:
    """Pieces of rows, by (split, row).

    Args:
      block: of `encode`.
      known: of `totals`.
      work: of all.
    """
    name, unit, place, document, ids, lengths = block
    split, length = known[name], work.layout.length
    documents, tokens, rows = split["before"][unit]
    kind = encoding.token_dtype(_tokenizer(work.tokenizer).size)
    flat, sizes = np.frombuffer(ids, kind), np.frombuffer(lengths, "<i8")
    owners = np.repeat(np.arange(len(sizes)) + documents + document, sizes)
    if work.layout.mode == "packed":
        begin = tokens + place
        ends = range(length - begin % length, len(flat) + length, length)
        starts = [0, *ends[:-1]]
    else:
        begin, starts = 0, []
        for size, end in zip(sizes, np.cumsum(sizes), strict=True):
            starts += range(end - size, end, length)
        ends = [*starts[1:], len(flat)]  # type: ignore[assignment]
    for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
        at = (begin + a) % length if work.layout.mode == "packed" else 0
        row = (begin + a) // length if work.layout.mode == "packed" else rows + place + i
        if row < split["rows"] and a < len(flat):
            yield (name, row), (at, flat[a:b].tobytes(), owners[a:b].astype("<i8").tobytes())


def assembled(item: tuple[Any, Iterable[Piece]], known: dict[str, Any], work: Work) -> Any:
    """((split, shard), (number in it, record, ids that count)) of a row and its pieces.

    Args:
      item: (split, row), and its pieces in any order.
      known: of `totals`.
      work: of all.
    """
    (name, row), pieces = item
    layout, tokenizer = work.layout, _tokenizer(work.tokenizer)
    kind = encoding.token_dtype(tokenizer.size)
    parts = sorted(pieces)
    ids = np.concatenate([np.frombuffer(p[1], kind) for p in parts])
    if layout.mode == "packed":
        owners = np.concatenate([np.frombuffer(p[2], "<i8") for p in parts])
        made = Row(ids, layout.length, (owners - owners[0] + 1).astype(np.int32))
    else:
        fill = tokenizer.pad if layout.pad == "ignore" else tokenizer.eos
        tokens = np.full(layout.length, fill or 0, kind)
        tokens[: len(ids)] = ids
        filled = layout.length if layout.pad == "eos_in_loss" else len(ids)
        made = Row(tokens, filled, (np.arange(layout.length) < filled).astype(np.int32))
    record = Codec(layout=layout, size=tokenizer.size).encode(made)
    used = min(work.shards, known[name]["rows"])
    return (name, row % used), (row // used, record, made.tokens[: made.filled].tobytes())


def write(item: tuple[Any, Iterable[Any]], known: dict[str, Any], work: Work) -> str:
    """Write a shard and its part of the manifest beside it; the shard's name.

    Args:
      item: (split, shard), and its records in any order.
      known: of `totals`.
      work: of all.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    (name, number), found = item
    records = sorted(found)
    size = _tokenizer(work.tokenizer).size
    kind = encoding.token_dtype(size)
    file = shard_name(name, number, min(work.shards, known[name]["rows"]))
    counts = np.zeros(size, np.int64)
    with storage.passing() as scratch:
        path = scratch / file
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for group in _groups(records, 1024):
            for _, record, _ in group:
                writer.write(record)
            ids = np.frombuffer(b"".join(r[2] for r in group), kind)
            counts += np.bincount(ids, minlength=size)
        writer.close()
        part = {
            "file": file,
            "records": len(records),
            "bytes": path.stat().st_size,
            "sha256": file_hash(path),
        }
        _put(work.folder, file, path.read_bytes())
    _put(work.folder, file + ".json", json.dumps(part | {"counts": counts.tolist()}).encode())
    return file


def _groups(records: list[Any], size: int) -> Iterator[list[Any]]:
    return (records[i : i + size] for i in range(0, len(records), size))


def _put(folder: str, name: str, data: bytes) -> None:
    writing.write(storage.at(folder) / name, data)


def splits(
    folder: Path, data: TextData, tokenizer: Tokenizer, divided: Divided, shards: int, options: str
) -> dict[str, Any]:
    """Write the shards of both splits; their parts of the manifest.

    Args:
      folder: where shards go; all machines see it, and the tokenizer lies in it.
      data: what is read.
      tokenizer: of the corpus.
      divided: which documents validate.
      shards: files per split.
      options: of Beam, such as --runner=DataflowRunner.

    Raises:
      UserError: without Beam, or for what it cannot read in pieces.
      RunError: if the pipeline breaks.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--engine=beam needs pip install 'ldd-jax[beam]'") from error
    work = Work(
        folder=str(folder),
        tokenizer=str(folder / "tokenizer"),
        layout=data.layout,
        field=data.field,
        split=data.split,
        limit=divided.limit,
        shards=shards,
    )
    todo = units(data, divided)
    is_size = lambda x: x[0] == "sizes"
    sum_up = lambda sizes: totals(sizes, work.layout)
    tell = lambda known: _put(work.folder, TOTALS, json.dumps(known).encode())
    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipe:
            said = pipe | beam.Create(todo) | beam.Reshuffle() | beam.FlatMap(encode, work)
            sizes = said | "sizes" >> beam.Filter(is_size) | beam.combiners.ToList()
            known = sizes | beam.Map(sum_up)
            _ = known | beam.Map(tell)
            side = beam.pvalue.AsSingleton(known)
            blocks = said | "blocks" >> beam.Filter(lambda x: not is_size(x))
            rows = blocks | beam.FlatMap(cut, side, work) | "rows" >> beam.GroupByKey()
            by_shard = rows | beam.Map(assembled, side, work) | "shards" >> beam.GroupByKey()
            _ = by_shard | beam.Map(write, side, work)
    except (UserError, RunError):
        raise
    except Exception as error:  # runners have their own kinds
        raise RunError(f"the Beam pipeline broke: {one_line(error)}") from error
    return {name: _manifest(folder, name, data, tokenizer, shards) for name in SPLIT_NAMES}


def _manifest(
    folder: Path, name: str, data: TextData, tokenizer: Tokenizer, shards: int
) -> dict[str, Any]:
    """A split's part, from what its shards left beside them."""
    place = storage.at(folder)
    known = json.loads((place / TOTALS).read_bytes())[name]
    packer: Any = SimpleNamespace(
        unknown=known["unknown"], tokens=known["tokens"], tokenizer=tokenizer
    )
    data.require_rows(name, packer, known["rows"])
    used = min(shards, known["rows"])
    parts, counts = [], np.zeros(tokenizer.size, np.int64)
    for number in range(used):
        beside = place / (shard_name(name, number, used) + ".json")
        part = json.loads(beside.read_bytes())
        counts += np.asarray(part.pop("counts"), np.int64)
        parts.append(part)
        beside.unlink()
    if name == SPLIT_NAMES[-1]:
        (place / TOTALS).unlink()
    kept = {n: known[n] for n in ("documents", "tokens", "dropped", "unknown")}
    return kept | {"unigram_entropy": entropy(counts), "shards": parts}
