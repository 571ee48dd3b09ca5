"""Garbage in a corpus: one line and exit status 2, or read for what it is; nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil

import numpy as np
import pytest

from ldd_jax.core.checks import RunError, UserError
from ldd_jax.data import Bytes, Characters, SentencePiece, TextData, batches, prepare
from ldd_jax.data.files import find_files
from ldd_jax.data.prepared import file_hash
from ldd_jax.data.problems import ProblemData
from ldd_jax.training import digests
from tests.cli import tools
from tests.cli.test_refusals import listing, refused
from tests.faults import fuzz

NOISE = random.Random(0).randbytes(3_000)
WORDS = tools.sentences(60)
PACKED = gzip.compress(random.Random(1).randbytes(5_000).hex().encode(), mtime=0)


def objects(*texts):
    return "".join(json.dumps({"text": t}) + "\n" for t in texts)


def changed(data, at, value=0xFF):
    return data[:at] + bytes([value]) + data[at + 1 :]


# name of the file, what it holds, and words of the refusal
GARBAGE = [
    ("elf.txt", b"\x7fELF\x02\x01\x01\0" + NOISE, "elf.txt"),
    ("image.txt", b"\x89PNG\r\n\x1a\n" + NOISE, "not UTF-8"),
    ("zeros.txt", bytes(100_000), "zeros.txt:1: a zero byte"),
    ("noise.txt.gz", b"\x1f\x8b\x08\0" + NOISE, "cannot read"),
    ("wide.txt", WORDS.encode("utf-16"), "not UTF-8"),
    ("late.txt", WORDS.encode() * 300 + b"\xc3\x28\n", "not UTF-8 text after line"),
    ("cut.txt", WORDS.encode() + "\u00e9".encode()[:1], "unexpected end of data"),
    ("surrogate.txt", WORDS.encode() + b"\xed\xa0\x80\n", "not UTF-8"),
    ("invalid.jsonl", b'{"text": "caf\xe9"}\n', "not UTF-8"),
    ("torn.txt.gz", PACKED[:1000], "ended before the end-of-stream"),
    ("distance.txt.gz", changed(PACKED, 101), "while decompressing"),
    ("lengths.txt.gz", changed(PACKED, 12), "while decompressing"),
    ("crc.txt.gz", changed(PACKED, len(PACKED) - 6), "CRC check failed"),
    ("bomb.txt.gz", gzip.compress(b"words " * 500_000), "unpacks to over"),
    ("none.txt", b"", "holds no text"),
    ("blank.jsonl", objects(*[""] * 50, "  \n\t").encode(), "holds no text"),
    ("single.txt", b"a", "hold no text"),
    ("copies.txt", b"a\n" * 1000, "hold no text"),
    ("deep.jsonl", b"[" * 100_000, "nested too deep"),
    ("deep.json", b'{"text": ' * 5_000, "nested too deep"),
    ("keys.jsonl", json.dumps({f"k{i}\n": i for i in range(9_000)}).encode(), "no field 'text'"),
    ("escape.jsonl", b'{"\\u001b[31m\\nred": 1}\n', "\\x1b[31m red"),
    ("digits.jsonl", b'{"text": ' + b"1" * 10_000 + b"}\n", "not JSON"),
    ("torn.jsonl", objects("one", "two").encode()[:-9], "torn.jsonl:2: not JSON"),
    ("name.parquet", fuzz.parquet().replace(b"text", b"te\xc2t"), "not a readable Parquet file"),
    ("no.parquet", b"PAR1" + NOISE + b"PAR1", "not a readable Parquet file"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that holds nothing else; a packed file counts as a bomb from 1 MB on."""
    monkeypatch.setattr("ldd_jax.core.reading.ALWAYS", 1 << 20)
    return tmp_path


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize(("name", "data", "words"), GARBAGE, ids=[g[0] for g in GARBAGE])
def test_garbage_is_refused_in_a_line(name, data, words, command, place):
    (place / name).write_bytes(data)
    before = listing(place)
    given = (*tools.corpus(place / name), *tools.SIZES)
    where = {"train": "--workdir", "prepare": "--output"}[command]
    out = tools.call(command, tools.recipe("mdlm"), f"{where}={place / 'new'}", *given)
    refused(out, words)
    assert len(out.err) < 4_000 and out.err[:-1].isprintable()
    assert listing(place) == before


def corpus(path, **fields):
    return TextData(path=str(path), **{"split": "line", "length": 16} | fields)


def test_empty_and_one_token_documents(tmp_path):
    """Empty ones are left out, short ones are rows like others; packed, padded and from shards."""
    path = tmp_path / "short.jsonl"
    path.write_text(objects(*["", " ", *"abcdefghij"] * 20))
    # With its EOS a document of one letter has two tokens.
    tokenizer = Characters().fit(lambda: ["abcdefghij"])  # the sides share no letter
    packed = corpus(path, validation_fraction=0.3).load(tokenizer)
    assert packed.train.documents + packed.validation.documents == 200
    assert packed.train.token_count == 2 * packed.train.documents
    fields = dict(validation_fraction=0.3, mode="padded")
    padded = corpus(path, **fields).load(tokenizer)
    assert len(padded.train) == padded.train.documents == packed.train.documents
    assert all(padded.train[i]["weight"].sum() == 2 for i in range(len(padded.train)))
    prepare(corpus(path, **fields), tmp_path / "out", tokenizer=tokenizer)
    stored = corpus(tmp_path / "out", **fields).load().train
    assert all((stored[i]["tokens"] == padded.train[i]["tokens"]).all() for i in range(len(stored)))


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [Characters(), Bytes(), SentencePiece(vocab_size=300)])
@pytest.mark.parametrize("name", ["mega.txt", "mega.jsonl"])
def test_lines_of_megabytes(tokenizer, name, tmp_path):
    """They lose nothing: what is cut into rows reads as the text that went in."""
    long = WORDS.replace("\n", " ")
    long *= 3_000_000 // len(long)
    texts = [long.strip(), *WORDS.split("\n")]
    (tmp_path / name).write_text(objects(*texts) if name.endswith("l") else "\n".join(texts))
    data = corpus(tmp_path / name, tokenizer=tokenizer, length=32, validation_fraction=0.3)
    got = data.load(tokenizer.fit(lambda: WORDS.split("\n"), needs=data.layout.needs))
    rows = max((got.train, got.validation), key=len)  # the long line is the first of its side
    tokens = np.concatenate([rows[i]["tokens"] for i in range(len(rows))])
    assert got.tokenizer.decode(tokens).startswith(long.strip()[:-200])


def test_a_shard_that_is_there_twice(tmp_path):
    """Copies of large files are refused; small ones may be equal documents, and share a side."""
    large = WORDS * 1_000
    assert len(large) > 1 << 20
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(large + name)
    assert len(find_files(f"{tmp_path}/*.txt")) == 2
    (tmp_path / "c.txt").write_text(large + "a.txt")
    given = (f"--config.data.path={tmp_path}/*.txt", *tools.SIZES, f"--workdir={tmp_path}/run")
    refused(tools.call("train", tools.recipe("mdlm"), *given), "a.txt twice", "c.txt is the same")
    (tmp_path / "c.txt").unlink()
    (tmp_path / "c.txt").symlink_to(tmp_path / "b.txt")
    with pytest.raises(UserError, match=r"b.txt twice.*c.txt is the same"):
        find_files(f"{tmp_path}/*.txt")
    for i in range(40):
        (tmp_path / f"{i}.md").write_text(WORDS[i % 20 * 9 : i % 20 * 9 + 40])
    found = corpus(tmp_path / "*.md", split="file", validation_fraction=0.3).divide()
    assert len(set(found.train())) * 2 == len(list(found.train()))
    assert not set(found.train()) & set(found.validation())


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz", "t.jsonl", "t.parquet"])
def test_files_that_vanish_between_two_passes(name, tmp_path):
    """A corpus is read several times: to be known, to fit a tokenizer, to be packed."""
    path = tmp_path / name
    if name.endswith("parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": WORDS.split("\n")}), path)
    else:
        text = objects(*WORDS.split("\n")) if "json" in name else WORDS
        path.write_bytes(gzip.compress(text.encode()) if "gz" in name else text.encode())
    data = corpus(path)
    divided = data.divide()
    path.unlink()
    with pytest.raises(UserError, match=name) as caught:
        data.fit(divided)
    assert "\n" not in str(caught.value)


@pytest.fixture
def shards(tmp_path):
    """A prepared folder of three shards a split, and the section that reads it."""
    (tmp_path / "t.txt").write_text(tools.sentences(300))
    section = corpus(tmp_path / "t.txt", validation_fraction=0.3)
    prepare(section, tmp_path / "out", shards=3)
    return tmp_path / "out"


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [os.unlink, folder, zeros], ids=lambda f: f.__name__)
@pytest.mark.parametrize("threads", [0, 2])
def test_shards_that_vanish_while_they_are_read(harm, threads, shards):
    rows = corpus(shards).load().train
    for path in shards.glob("train-*"):
        harm(path)
    with pytest.raises(RunError, match="cannot read .*out: .*the same command goes on"):
        list(zip(range(40), batches(rows, batch_size=8, threads=threads)))


@pytest.mark.slow
def test_a_run_whose_shards_vanish(shards, tmp_path, monkeypatch):
    """Those to validate on are missed at the first evaluation: exit 1; put back, it goes on."""
    from ldd_jax.inference import evaluate

    flags = (*tools.SIZES, *tools.OPTIM, "--config.training.num_steps=12")
    often = ("--config.training.checkpoint_every=4", "--config.training.eval_every=6")
    given = (tools.recipe("mdlm"), f"--config.data.path={shards}", *flags, *often)
    plain = tools.good("train", *given, f"--workdir={tmp_path / 'plain'}")
    assert "updates 0 to 12" in plain.out

    away, workdir, plainly = tmp_path / "away", tmp_path / "run", evaluate.evaluate_split

    def gone(*args, **options):
        if not away.exists():
            shutil.copytree(shards, away)
            for path in shards.glob("validation-*"):
                path.unlink()
        return plainly(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate_split", gone)
    out = tools.call("train", *given, f"--workdir={workdir}")
    assert out.status == 1 and out.err.startswith("ldd_jax: cannot read"), out
    assert out.err.count("\n") == 1 and "No such file" in out.err
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4"]
    assert digests.fault(workdir / "checkpoints" / "4") == ""
    assert not (workdir / "summary.json").exists()

    refused(tools.call("train", *given, f"--workdir={workdir}"), "is missing; run prepare again")
    shutil.rmtree(shards)
    shutil.copytree(away, shards)
    assert "updates 4 to 12" in tools.good("train", *given, f"--workdir={workdir}").out
    assert tools.curve(workdir) == tools.curve(tmp_path / "plain")


def test_wrong_hashes_and_swapped_shards(shards, tmp_path):
    given = (f"--config.data.path={shards}", *tools.SIZES, f"--workdir={tmp_path / 'run'}")
    train = lambda: tools.call("train", tools.recipe("mdlm"), *given)
    first, second = sorted(shards.glob("train-*"))[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(changed(one, len(one) // 2, one[len(one) // 2] ^ 1))
    refused(train(), first.name, "does not have the hash")
    first.write_bytes(two)  # the same shard twice
    refused(train(), first.name, "run prepare again")
    first.write_bytes(one[:-1])
    refused(train(), first.name, "its manifest says")
    first.unlink()
    refused(train(), first.name, "is missing")
    first.write_bytes(one)
    manifest = shards / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["splits"]["train"]["shards"][1]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(tree))
    refused(train(), second.name, "does not have the hash")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["token", "filled", "short"])
def test_records_out_of_range(what, shards, tmp_path):
    """A shard with the right hash whose records say what cannot be: told apart row by row."""
    from array_record.python.array_record_module import ArrayRecordWriter

    manifest = shards / "manifest.json"
    tree = json.loads(manifest.read_text())
    size = tree["tokenizer"]["size"]
    record = {
        "token": size.to_bytes(2, "little") * 16 + (16).to_bytes(4, "little"),
        "filled": bytes(32) + (17).to_bytes(4, "little"),
        "short": bytes(20),
    }[what]
    shard = tree["splits"]["train"]["shards"][1]
    path = shards / shard["file"]
    path.unlink()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(shard["records"]):
        writer.write(record)
    writer.close()
    shard |= {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    manifest.write_text(json.dumps(tree))
    given = (f"--config.data.path={shards}", *tools.SIZES, f"--workdir={tmp_path / 'run'}")
    out = tools.call("train", tools.recipe("mdlm"), *given)
    words = {"token": f"token {size}", "filled": "fills 17 of 16", "short": "has 20 bytes"}
    refused(out, path.name, words[what], "it is damaged; run prepare again")


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, "[1]", "null", '{"input": 1, "output": 2}', "\0\1", "{", '{"input": ""}'],
)
def test_problem_files(line, tmp_path):
    for name in ("train", "held"):
        (tmp_path / f"{name}.jsonl").write_text('{"input": "1,2,3", "output": "1+2=3"}\n' + line)
    files = dict(path=str(tmp_path / "train.jsonl"), validation_path=str(tmp_path / "held.jsonl"))
    with pytest.raises(UserError, match="line 2: no|:2: a zero byte"):
        ProblemData(length=32, **files).load()
