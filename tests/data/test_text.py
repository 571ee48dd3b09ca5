from __future__ import annotations

import json
import math

import numpy as np
import pytest
from grain.sources import ArrayRecordDataSource

from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import build, section
from ldd_jax.data import Bytes, Characters, SentencePiece, TextData, load_tokenizer, prepare
from ldd_jax.data.prepared import read_prepared


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "text.txt"
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "then", "sleeps"]
    rng = np.random.default_rng(0)
    path.write_text("\n".join(" ".join(rng.choice(words, 9)) for _ in range(60)))
    return path


def data(path, **fields):
    return TextData(
        path=str(path), split="line", length=16, validation_fraction=0.2, **fields
    )  # fmt: skip


def same_rows(a, b):
    assert len(a) == len(b) > 0
    for i in range(len(a)):
        x, y = a[i], b[i]
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype and (x[name] == y[name]).all()


def test_section_round_trip():
    config = section(TextData, length=32, tokenizer=section(SentencePiece, vocab_size=512))
    again = build("data", json.loads(config.to_json()))
    assert again == TextData(length=32, tokenizer=SentencePiece(vocab_size=512))
    for fields, match in (
        ({"mode": "paced"}, "did you mean 'packed'"),
        ({"length": 0}, "length=0"),
        ({"split": "lines"}, "did you mean 'line'"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
        ({"max_documents": -1}, "max_documents=-1"),
    ):
        with pytest.raises(UserError, match=match):
            build("data", section(TextData, **fields))
    with pytest.raises(UserError, match="path is empty"):
        TextData(path="").check()


@pytest.mark.slow
def test_default_corpus():
    corpus = TextData().load()
    assert corpus.tokenizer.decode(corpus.train[0]["tokens"]).isprintable() or len(corpus.train)
    assert len(corpus.train) > 10_000 and len(corpus.validation) > 200
    assert 2.8 < corpus.unigram_entropy("train") < 3.4
    text = corpus.describe()
    assert corpus.fingerprint in text and f"{len(corpus.train):,} rows" in text
    assert text.count("\n") == 1


def test_load_and_unigram_entropy(corpus_file):
    corpus = data(corpus_file).load()
    for split, rows in (("train", corpus.train), ("validation", corpus.validation)):
        tokens = np.concatenate([rows[i]["tokens"] for i in range(len(rows))])
        p = np.bincount(tokens) / len(tokens)
        expected = -sum(x * math.log(x) for x in p if x)
        assert corpus.unigram_entropy(split) == pytest.approx(expected)
    with pytest.raises(UserError, match="did you mean 'train'"):
        corpus.rows("trains")
    # An alphabet comes from the training documents alone.
    corpus_file.with_name("v.txt").write_text("lazy dog Z " * 30)
    held = data(corpus_file, validation_path=str(corpus_file.with_name("v.txt"))).load()
    assert "Z" not in held.tokenizer.alphabet
    assert held.tokenizer.unknown in held.validation[0]["tokens"]


def test_given_tokenizer(corpus_file, tmp_path):
    first = data(corpus_file, tokenizer=Bytes()).load()
    first.tokenizer.save(tmp_path / "saved")
    again = data(corpus_file).load(load_tokenizer(tmp_path / "saved"))  # not refitted
    same_rows(first.train, again.train)
    with pytest.raises(UserError, match="has no eos token"):
        data(corpus_file).load(Characters().fit(lambda: ["ab"], needs=()))


def test_too_short(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("twelve chars\nand more")
    with pytest.raises(UserError, match=r"train split .* has \d+ tokens, .*length=64;.*longer"):
        TextData(path=str(path)).load()
    path.write_text("a long enough text " * 10)
    with pytest.raises(UserError, match=r"validation split .* raise data.validation_fraction"):
        TextData(path=str(path)).load()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"segments": True, "tokenizer": Bytes()},
        {"mode": "padded", "bos": True},
        {"mode": "padded", "pad": "eos_in_loss", "tokenizer": SentencePiece(vocab_size=290)},
    ],
)
@pytest.mark.parametrize("shards", [1, 3])
def test_prepared_equals_direct(corpus_file, tmp_path, fields, shards):
    config = data(corpus_file, **fields)
    direct = config.load()
    prepare(config, tmp_path / "out", shards=shards)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "text.txt"]
    layout = {k: v for k, v in fields.items() if k != "tokenizer"}
    corpus = data(tmp_path / "out", **layout).load()
    same_rows(direct.train, corpus.train)
    same_rows(direct.validation, corpus.validation)
    assert corpus.fingerprint == direct.fingerprint
    assert corpus.tokenizer.digest == direct.tokenizer.digest
    assert corpus.unigram_entropy() == pytest.approx(direct.unigram_entropy(), abs=1e-12)
    counted = lambda r: (r.documents, r.token_count, r.dropped)
    assert counted(corpus.train) == counted(direct.train)
    names = sorted(p.name for p in (tmp_path / "out").glob("train-*"))
    assert names == [f"train-{i:05d}-of-{shards:05d}.array_record" for i in range(shards)]
    with pytest.raises(IndexError):
        corpus.train[len(corpus.train)]
    same_rows([corpus.train[len(corpus.train) - 1]], [corpus.train[-1]])


@pytest.mark.parametrize("fields", [{}, {"mode": "padded"}, {"segments": True}])
def test_prepared_rows_are_read_with_plain_grain(corpus_file, tmp_path, fields):
    """By what the manifest says alone, as docs/data.md shows it."""
    config = data(corpus_file, tokenizer=Bytes(), **fields)
    prepare(config, tmp_path / "out", shards=3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    kind = np.dtype([(name, type_, tuple(shape)) for name, type_, shape in manifest["record"]])
    shards = manifest["splits"]["train"]["shards"]
    sources = [ArrayRecordDataSource(str(tmp_path / "out" / s["file"])) for s in shards]
    rows = config.load().train
    for i in range(len(rows)):
        row = np.frombuffer(sources[i % len(sources)][i // len(sources)], kind)[0]
        np.testing.assert_array_equal(row["tokens"], rows[i]["tokens"])
        assert row["filled"] == rows[i]["weight"].sum()
        if "segment" in rows[i]:
            np.testing.assert_array_equal(row["segment"], rows[i]["segment"])
    assert ("segment" in kind.names) == bool(fields)


def test_records_of_another_kind_are_refused(corpus_file, tmp_path):
    prepare(data(corpus_file), tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    for change, text in (
        ({"record": [["tokens", "<u8", [32]]]}, "describes other records"),
        ({"layout": manifest["layout"] | {"length": 2**40}}, "must be 1 to"),
    ):
        path.write_text(json.dumps(manifest | change))
        with pytest.raises(UserError, match=text):
            read_prepared(tmp_path / "out")
    manifest.pop("record")  # written before the manifest said it
    path.write_text(json.dumps(manifest))
    assert len(read_prepared(tmp_path / "out").rows["train"])


def test_prepare_fewer_rows_than_shards(corpus_file, tmp_path):
    corpus = prepare(data(corpus_file, max_documents=5), tmp_path / "out", shards=50)
    assert len(list((tmp_path / "out").glob("train-*"))) == len(corpus.train) < 50


def test_prepare_leaves_nothing_half_written(corpus_file, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        prepare(data(corpus_file), full)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(json.dumps({"text": "ab" * 49 + c}) for c in "ab"))
    config = TextData(path=str(bad), length=64)
    tokenizer = Bytes().fit(list)

    def fail(text, start):
        raise RuntimeError("stopped")

    tokenizer._encode = fail
    with pytest.raises(RuntimeError, match="stopped"):
        prepare(config, tmp_path / "out", tokenizer=tokenizer)
    with pytest.raises(UserError, match="shorter row|fewer than one row"):
        prepare(TextData(path=str(bad), length=640), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl", "full", "text.txt"]
    (tmp_path / "out").mkdir()  # an empty folder will do
    prepare(config, tmp_path / "out")
    with pytest.raises(UserError, match="prepared already"):
        prepare(TextData(path=str(tmp_path / "out"), length=64), tmp_path / "again")


def test_prepared_refusals(corpus_file, tmp_path):
    out = tmp_path / "out"
    prepare(data(corpus_file), out, shards=2)
    with pytest.raises(UserError, match=r"prepared with length=16 \(not 32\)"):
        TextData(path=str(out), length=32).load()
    with pytest.raises(UserError, match="prepared with eos=True"):
        data(out, eos=False).load()
    with pytest.raises(UserError, match="another tokenizer"):
        data(out).load(Bytes().fit(list))
    with pytest.raises(UserError, match="data.max_documents does not apply"):
        data(out, max_documents=3).load()

    manifest = out / "manifest.json"
    good = manifest.read_text()
    shard = out / "train-00001-of-00002.array_record"
    name = shard.name
    for old, new, match in (
        ('"version": 1', '"version": 2', "version 2, this library reads 1"),
        ('"format": "ldd', '"format": "x', "not the manifest"),
        (name, "../" + name, "names a shard"),
        (name, "train-00000-of-00002.array_record", "is named"),
        ('"records": ', '"records": 1', "do not fit together"),
        ('"digest": "', '"digest": "0', "is not the tokenizer"),
        ('"length": 16', '"length": "x"', "damaged"),
        ('"splits"', '"spits"', "damaged"),
        ('"sha256": "', '"sha256": "0', "does not have the hash"),
        ("{", "", "cannot read"),
    ):
        assert old in good
        manifest.write_text(good.replace(old, new, 1))
        with pytest.raises(UserError, match=match):
            data(out).load()
    manifest.write_text(good)
    content = bytearray(shard.read_bytes())
    middle = content.find(b"\0" * 8) // 2
    content[middle] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match="does not have the hash"):
        data(out).load()
    read_prepared(out, verify=False)  # sizes alone do not see it
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match="bytes, its manifest says"):
        read_prepared(out, verify=False)
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        data(out).load()
