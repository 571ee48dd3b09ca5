"""Documents from a path string: a corpus inside Python, text, JSON lines, Parquet, or TFDS.

The scheme before a colon or the suffix of the file chooses the reader; documents are streamed, so
that every pass over a source reads its files afresh.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ldd_jax.core import reading
from ldd_jax.core.buckets import STORES
from ldd_jax.core.checks import UserError, nearest, parse_json, require
from ldd_jax.data.files import find_files, numbered_lines
from ldd_jax.data.python_docs import python_docs
from ldd_jax.data.tfds_folder import open_folder

SPLITS = ("file", "line", "paragraph")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Documents that can be read any number of times.

    Attributes:
      name: the path as given, for messages.
      train: starts a pass over the documents.
      validation: likewise over the source's own validation (or test) split; None = it has none.
    """

    name: str
    train: Callable[[], Iterable[str]]
    validation: Callable[[], Iterable[str]] | None = None

    def documents(self) -> Iterator[str]:
        """The documents, blank ones left out.

        Raises:
          UserError: if there are none, or one cannot be read.
        """
        return _checked(self.name, self.train)

    def own_validation(self) -> Iterator[str]:
        """The documents of the source's own validation split."""
        require(self.validation is not None, f"{self.name} has no validation split of its own")
        return _checked(f"{self.name} (validation)", self.validation)  # type: ignore[arg-type]


def _checked(name: str, read: Callable[[], Iterable[str]]) -> Iterator[str]:
    found = False
    for text in read():
        if text and not text.isspace():
            found = True
            yield text
    require(found, f"{name} holds no text")


def fingerprint(documents: Iterable[str]) -> str:
    """Sixteen hex digits of the SHA-256 over the documents, their order and their bounds."""
    digest = hashlib.sha256()
    for text in documents:
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def open_source(path: str, *, field: str = "text", split: str = "file") -> Source:
    """Find the reader for `path`; nothing is read yet.

    Args:
      path: `python-docs`; `tfds:NAME[/config]` or `tfds:FOLDER`; or a file or glob, where
        `.jsonl`, `.ndjson` and `.json` hold one JSON object a line, `.parquet` a table, and
        anything else UTF-8 text. `.gz` is unpacked on the way.
      field: the JSON key, Parquet column or TFDS feature that holds the text.
      split: what a document of a text file is: the "file", a "line", or a "paragraph" (lines up
        to a blank one).

    Raises:
      UserError: if there is no such file, data set or way to split.
    """
    require(bool(path), "data.path is empty; give a file, a glob, 'python-docs' or 'tfds:NAME'")
    require(split in SPLITS, f"split={split!r}; {nearest(split, SPLITS)}")
    scheme, colon, rest = path.partition(":")
    if scheme in _SCHEMES and (colon or scheme == path):
        return _SCHEMES[scheme](path, rest, field)
    require(
        "://" not in path or scheme.lower() in STORES,
        f"cannot read {path}: only local files and buckets ({', '.join(STORES)}); schemes "
        f"{nearest(scheme, _SCHEMES)}",
    )
    files = find_files(path, f"or use {', '.join(sorted(_SCHEMES))}")

    def read() -> Iterator[str]:
        for file in files:
            yield from read_file(file, field, split)

    return Source(name=path, train=read)


def read_file(file: str, field: str, split: str) -> Iterator[str]:
    """The documents of one file, blank ones among them; the arguments are those of `open_source`.

    Args:
      file: its name.
      field: JSON key or column.
      split: what a document of a text file is.
    """
    return _SUFFIXES.get(_suffix(file), _text)(file, field, split)


def _suffix(file: str) -> str:
    return os.path.splitext(file.removesuffix(".gz"))[1].lower()


def _text(file: str, field: str, split: str) -> Iterator[str]:
    """A text file as one document, one a line, or one a paragraph."""
    group: list[str] = []
    for _, line in numbered_lines(file):
        if split == "line":
            yield line
        elif split == "paragraph" and not line.strip():
            yield "\n".join(group)
            group.clear()
        else:
            group.append(line)
    yield "\n".join(group)


def _json_lines(file: str, field: str, split: str) -> Iterator[str]:
    """One JSON object a line."""
    for number, line in numbered_lines(file):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            record = parse_json(line)
            if line.count(f'"{field}"') > 1:  # a key given twice: which of the texts is meant?
                json.loads(line, object_pairs_hook=reading.unique)
        except ValueError as error:
            reason = getattr(error, "msg", error)
            raise UserError(f"{where}: not JSON ({reason}); one object a line is read") from error
        require(isinstance(record, dict), f"{where}: not a JSON object; one object a line is read")
        yield _value(record, field, where)


def _value(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        known = [str(name) for name in itertools.islice(record, 20)]
        raise UserError(f"{where}: no field {field!r}; {nearest(field, known)}")
    text = record[field]
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: field {field!r} is not UTF-8 text") from error
    require(
        isinstance(text, str), f"{where}: field {field!r} is {type(text).__name__}, expected text"
    )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: field {field!r} holds half a character (surrogate)") from error
    return text


def _parquet(file: str, field: str, split: str) -> Iterator[str]:
    """A column of a Parquet file, at most a thousand rows at a time.

    A value may stand once in the file and be meant by every row: what the rows give is counted as
    what a packed file unpacks to, and a few rows are taken at once where a value may be large.
    """
    import pyarrow
    import pyarrow.parquet

    number = given = 0
    try:
        with reading.opened(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            table = pyarrow.parquet.ParquetFile(stream)
            names = table.schema_arrow.names
            require(field in names, f"{file}: no column {field!r}; {nearest(field, names)}")
            require(
                names.count(field) == 1,
                f"{file}: {names.count(field)} columns are named {field!r}; rename all but one",
            )
            largest = _largest_chunk(file, size, table.metadata)
            rows = min(1000, max(8, 4 * reading.ALWAYS // largest))
            for batch in table.iter_batches(batch_size=rows, columns=[field]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    where = f"{file} row {number}"
                    text = _value({field: value}, field, where)
                    given += len(text)
                    require(
                        len(text) <= reading.LONGEST_TEXT,
                        f"{where}: a value of more than {reading.LONGEST_TEXT:,} characters",
                    )
                    require(
                        not reading.swollen(size, given),
                        f"{file}: its rows hold over {reading.RATIO} times its size",
                    )
                    yield text
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: names not in UTF-8
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file}: not a readable Parquet file ({reason})") from error


def _largest_chunk(file: str, size: int, metadata: Any) -> int:
    """Bytes of the largest part that is unpacked at once; one that says it swells is refused."""
    largest = 1
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        for column in range(rows.num_columns):
            claimed = rows.column(column).total_uncompressed_size
            require(
                not reading.swollen(size, claimed),
                f"{file}: {size:,} bytes unpack to {claimed:,}, over {reading.RATIO} times as many",
            )
            largest = max(largest, claimed)
    return largest


def _python_docs(path: str, rest: str, field: str) -> Source:
    require(path == "python-docs", f"{path}: python-docs takes nothing after it")
    return Source(name=path, train=python_docs)


# Names of other namespaces (huggingface:...) would be looked up on the network.
_TFDS_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d.*]+)?")


def _tfds(path: str, name: str, field: str) -> Source:
    """A data set that TFDS has prepared in a random-access format; nothing is downloaded."""
    import tensorflow_datasets as tfds

    folder = Path(name).expanduser()
    if os.sep in name and folder.is_dir():
        builder = open_folder(folder, path)
    else:
        require(bool(_TFDS_NAME.fullmatch(name)), f"{path}: expected tfds:NAME, NAME/config or an "
                "existing folder")  # fmt: skip
        try:
            builder = tfds.builder(name, try_gcs=False)
        except (ValueError, ImportError, AttributeError) as error:
            close = nearest(name.split("/")[0], tfds.list_builders(with_community_datasets=False))
            hint = close[close.find("(did") :] if "(did" in close else "see tfds.list_builders()"
            raise UserError(f"{path}: TFDS knows no such data set or config {hint}") from error
    splits = list(builder.info.splits)
    require(
        "train" in splits,
        f"{path} is not prepared here (splits: {', '.join(splits) or 'none'}); run "
        "'tfds build NAME --file_format=array_record' first",
    )

    def reader(split: str) -> Callable[[], Iterator[str]]:
        def read() -> Iterator[str]:
            try:
                records = builder.as_data_source(split)
            except (NotImplementedError, ValueError, OSError) as error:
                raise UserError(
                    f"{path}: split {split!r} cannot be read at random; prepare it with "
                    "'tfds build NAME --file_format=array_record'"
                ) from error
            for number in range(len(records)):
                yield _value(records[number], field, f"{path} {split} record {number}")

        return read

    own = next((s for s in ("validation", "test") if s in splits), None)
    return Source(name=path, train=reader("train"), validation=reader(own) if own else None)


_SCHEMES: dict[str, Callable[[str, str, str], Source]] = {
    "python-docs": _python_docs,
    "tfds": _tfds,
}
_SUFFIXES: dict[str, Callable[[str, str, str], Iterator[str]]] = {
    ".json": _json_lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
