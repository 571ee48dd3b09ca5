from __future__ import annotations

import gzip
import json
import sys

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data.python_docs import _paragraphs, python_docs
from ldd_jax.data.sources import fingerprint, open_source
from ldd_jax.data.splits import divide, document_hash


def read(path, **options):
    return list(open_source(str(path), **options).documents())


@pytest.mark.slow
def test_python_docs_is_a_megabyte_of_unique_ascii_prose():
    documents = python_docs()
    text = "\n".join(documents)
    assert len(text) >= 1_000_000 and text.isascii() and len(documents) > 200
    lines = text.split("\n")
    assert len(lines) == len(set(lines)) and min(map(len, lines)) >= 40
    assert sum(c.isalpha() or c == " " for c in text) > 0.9 * len(text)
    assert ">>>" not in text and "::=" not in text and "  " not in text
    first = fingerprint(documents)
    python_docs.cache_clear()
    assert fingerprint(python_docs()) == first
    assert read("python-docs") == list(documents)


def test_paragraph_cleaning():
    good = "Return \u201cthe\u201d ``value`` of the :meth:`~x.y` attribute\n   if *it* has one."
    text = f"{good}\n\n>>> code that runs and prints things out\n\n| a | b |\n\nshort.\n\n{good}"
    seen: set[str] = set()
    assert list(_paragraphs(text, seen)) == [
        'Return "the" value of the x.y attribute if it has one.'
    ]
    assert not list(_paragraphs(good, seen))


def test_text_files_and_globs(tmp_path):
    (tmp_path / "b.txt").write_text("one\ntwo\n\nthree\n")
    (tmp_path / "a.txt").write_bytes("\ufeffcaf\u00e9\r\nend".encode())
    assert read(tmp_path / "b.txt") == ["one\ntwo\n\nthree"]
    assert read(tmp_path / "b.txt", split="line") == ["one", "two", "three"]
    assert read(tmp_path / "b.txt", split="paragraph") == ["one\ntwo", "three"]
    assert read(tmp_path / "*.txt") == ["caf\u00e9\nend", "one\ntwo\n\nthree"]
    (tmp_path / "README").write_text("no suffix")
    assert read(tmp_path / "README") == ["no suffix"]
    with gzip.open(tmp_path / "c.txt.gz", "wt") as stream:
        stream.write("packed text")
    assert read(tmp_path / "c.txt.gz") == ["packed text"]


def test_bad_text_files(tmp_path):
    def refused(path, match, **options):
        with pytest.raises(UserError, match=match) as caught:
            read(path, **options)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.txt", "does not exist")
    refused(tmp_path / "*.nothing", "matches no file")
    refused(tmp_path, "is a folder without manifest.json")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\n ")
    refused(tmp_path / "empty.txt", "holds no text")
    refused(tmp_path / "blank.txt", "holds no text")
    (tmp_path / "latin.txt").write_bytes(b"good line\ncaf\xe9\n")
    refused(tmp_path / "latin.txt", "not UTF-8")
    (tmp_path / "binary.txt").write_bytes(b"PK\x00\x01")
    refused(tmp_path / "binary.txt", "binary.txt:1: a zero byte")
    (tmp_path / "fake.gz").write_bytes(b"not gzip")
    refused(tmp_path / "fake.gz", "cannot read")
    refused("", "path is empty")
    refused("https://example.org/a.txt", "only local files")
    refused("python-docs:3", "takes nothing after it")
    refused(tmp_path / "blank.txt", "did you mean 'line'", split="lines")


def test_json_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a b"}\n\n{"text": "c", "body": "d"}\n')
    assert read(path) == ["a b", "c"]
    with pytest.raises(UserError, match=r"x.jsonl:1: no field 'body'; allowed: text"):
        read(path, field="body")
    for line, match in (
        ("{bad", "x.jsonl:2: not JSON"),
        ("[1]", "x.jsonl:2: not a JSON object"),
        ('{"text": 3}', "x.jsonl:2: field 'text' is int"),
        ('{"text": "\\ud800"}', "x.jsonl:2: .*surrogate"),
        ("[" * 100_000, "x.jsonl:2: not JSON"),
    ):
        path.write_text('{"text": "fine"}\n' + line + "\n")
        with pytest.raises(UserError, match=match):
            read(path)
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps([{"text": "a"}], indent=1))
    with pytest.raises(UserError, match="one object a line"):
        read(path)


def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    table = pyarrow.table({"text": ["a b", "c"], "number": [1, 2], "gap": ["x", None]})
    pyarrow.parquet.write_table(table, path)
    assert read(path) == ["a b", "c"]
    with pytest.raises(UserError, match="no column 'txt'.*did you mean 'text'"):
        read(path, field="txt")
    with pytest.raises(UserError, match="row 1: field 'number' is int"):
        read(path, field="number")
    with pytest.raises(UserError, match="row 2: field 'gap' is NoneType"):
        read(path, field="gap")
    (tmp_path / "bad.parquet").write_text("no parquet at all")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read(tmp_path / "bad.parquet")


BUILDER = """
import tensorflow_datasets as tfds

class TinyText(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("t", 6), "test": self._generate_examples("v", 2)}

    def _generate_examples(self, name, count):
        for i in range(count):
            yield i, {"text": f"{name} document {i}"}
"""


def test_tfds(tmp_path, monkeypatch):
    package = tmp_path / "code" / "tiny_text_for_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BUILDER)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    import tiny_text_for_test

    builder = tiny_text_for_test.TinyText(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    folder = tmp_path / "tiny_text" / "1.0.0"
    source = open_source(f"tfds:{folder}")
    assert sorted(source.documents()) == [f"t document {i}" for i in range(6)]
    assert sorted(source.own_validation()) == [f"v document {i}" for i in range(2)]
    divided = divide(source, None, fraction=0.5)
    assert set(divided.validation()) == {"v document 0", "v document 1"}
    assert len(list(divided.train())) == 6 and "own validation split" in divided.note
    with pytest.raises(UserError, match="no field 'body'"):
        read(f"tfds:{folder}", field="body")
    assert "tensorflow" not in sys.modules


def test_tfds_refusals(tmp_path):
    with pytest.raises(UserError, match="did you mean 'lm1b'"):
        read("tfds:lm1bb")
    with pytest.raises(UserError, match="expected tfds:NAME"):
        read("tfds:huggingface:squad")
    with pytest.raises(UserError, match="expected tfds:NAME"):
        read("tfds:no name")
    with pytest.raises(UserError, match="no dataset_info.json"):
        read(f"tfds:{tmp_path}")


def lines(tmp_path, texts):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(texts))
    return open_source(str(path), split="line")


def test_split_by_document_is_disjoint_and_complete(tmp_path):
    texts = [f"document number {i}" for i in range(400)] + ["document number 3"] * 5
    divided = divide(lines(tmp_path, texts), None, fraction=0.1)
    train, validation = list(divided.train()), list(divided.validation())
    assert sorted(train + validation) == sorted(texts) and not set(train) & set(validation)
    assert 20 <= len(validation) <= 70
    # A corpus that grows keeps its sides, and order does not matter.
    more = divide(lines(tmp_path, [*texts[::-1], "new one"]), None, fraction=0.1)
    assert set(validation) <= set(more.validation()) and set(train) <= set(more.train())
    assert more.fingerprint != divided.fingerprint


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_neither_side_is_empty(tmp_path, fraction):
    divided = divide(lines(tmp_path, ["aa", "bb", "cc"]), None, fraction=fraction)
    train, validation = list(divided.train()), list(divided.validation())
    assert train and validation and sorted(train + validation) == ["aa", "bb", "cc"]
    low, high = min("aa", "bb", "cc", key=document_hash), max("aa", "bb", "cc", key=document_hash)
    assert low in validation and high in train


def test_one_document_is_cut(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("0123456789" * 10)
    divided = divide(open_source(str(path)), None, fraction=0.2)
    assert list(divided.train()) == ["0123456789" * 8]
    assert list(divided.validation()) == ["0123456789" * 2]
    assert "single document" in divided.note


def test_given_validation_and_limit(tmp_path):
    (tmp_path / "v.txt").write_text("v1\nv2\nv3")
    validation = open_source(str(tmp_path / "v.txt"), split="line")
    divided = divide(
        lines(tmp_path, ["a", "b", "c"]), validation, fraction=0.1, max_documents=2
    )  # fmt: skip
    assert list(divided.train()) == ["a", "b"] and list(divided.validation()) == ["v1", "v2"]


def test_fingerprint_sees_bounds_and_order():
    prints = {fingerprint(d) for d in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])}
    assert len(prints) == 4 and all(len(p) == 16 for p in prints)


def test_a_name_that_stands_there_twice(tmp_path):
    """Which of the two texts is meant cannot be told: neither is taken."""
    import pyarrow
    import pyarrow.parquet

    columns = [pyarrow.array(["one"]), pyarrow.array(["two"]), pyarrow.array(["three"])]
    table = pyarrow.Table.from_arrays(columns, ["text", "text", "other"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: 2 columns are named 'text'"):
        list(open_source(str(tmp_path / "a.parquet")).documents())
    assert list(open_source(str(tmp_path / "a.parquet"), field="other").documents()) == ["three"]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two", "text": "three"}\n')
    with pytest.raises(UserError, match=r"a.jsonl:2: not JSON \(the key 'text' stands there twice"):
        list(open_source(str(tmp_path / "a.jsonl")).documents())
    (tmp_path / "b.jsonl").write_text('{"text": "a \\"text\\" and \\"text\\""}\n')
    assert list(open_source(str(tmp_path / "b.jsonl")).documents()) == ['a "text" and "text"']
