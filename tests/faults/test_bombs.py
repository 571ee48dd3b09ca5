"""Small files that claim or unpack to more than the machine has: refused before it is asked for."""

from __future__ import annotations

import gzip
import json
import os
import struct
import time
import zipfile
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import save_file

from ldd_jax.bench.judging import read_samples
from ldd_jax.cli import command_line, main
from ldd_jax.core import reading
from ldd_jax.core.checks import UserError
from ldd_jax.core.tensors import read_safetensors
from ldd_jax.data import Json, TextData, load_tokenizer
from ldd_jax.data.files import MOST_FILES, find_files, numbered_lines
from ldd_jax.data.packing import Layout
from ldd_jax.data.sources import open_source
from ldd_jax.interop import recorded, reference, sources
from ldd_jax.training import digests
from ldd_jax.training.metrics import read_metrics
from tests.cli import tools
from tests.faults import fuzz
from tests.interop.test_reference import weights

MEGA = 1 << 20


@pytest.fixture(autouse=True)
def short():
    """Each is refused at once; a machine that tries takes minutes, or is killed."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 20


def safetensors_file(path, entries, body=b""):
    header = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    return path


def entry(shape, kind="F32", size=0):
    return {"dtype": kind, "shape": shape, "data_offsets": [0, size]}


def test_block_numbers_are_contiguous(tmp_path):
    """blocks.999999999 made a network of so many blocks."""
    for number in ("999999999", "5", "01", "x", "9" * 5000):
        w = weights() | {f"blocks.{number}.norm1.weight": np.ones(2, np.float32)}
        with pytest.raises(UserError, match="numbered from 0 on without gaps"):
            reference.sizes(w, heads=2)
    save_file(w, tmp_path / "a.safetensors")
    given = ("import", tmp_path / "a.safetensors", "--method=mdlm", "--heads=2")
    out = tools.call(*given, f"--workdir={tmp_path / 'run'}")
    assert out.status == 2 and out.err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("shape", [[0, 10**12], [10**12, 0], [0]])
def test_empty_tensors_claim_nothing(shape, tmp_path):
    path = safetensors_file(tmp_path / "a", {"a": entry(shape)})
    with pytest.raises(UserError, match="which is empty"):
        read_safetensors(path)


@pytest.mark.parametrize("shape", [None, 4, "44", {"4": 4}, [1.5], [True], [2, "3"], [[2]]])
def test_what_is_no_shape(shape, tmp_path):
    path = safetensors_file(tmp_path / "a", {"a": entry(shape, size=16)}, bytes(16))
    with pytest.raises(UserError, match="it gives 'a' no shape"):
        read_safetensors(path)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F4", "C64", "F128"])
def test_types_that_no_network_has(kind, tmp_path):
    path = safetensors_file(tmp_path / "a", {"a": entry([2], kind, 16)}, bytes(16))
    with pytest.raises(UserError, match=f"stored as {kind}"):
        read_safetensors(path)


def test_a_tensor_named_twice(tmp_path):
    one = json.dumps(entry([1], size=4))
    path = safetensors_file(tmp_path / "a", f'{{"a": {one}, "a": {one}}}'.encode(), bytes(4))
    with pytest.raises(UserError, match="'a' stands there twice"):
        read_safetensors(path)


def link(path, target):
    path.symlink_to(target)


@pytest.mark.parametrize("make", [lambda p: link(p, "/dev/zero"), os.mkfifo], ids=["zero", "pipe"])
def test_pipes_and_devices(make, tmp_path):
    """Nothing waits for a writer or reads without end, whatever a file of ours is replaced by."""
    for name in ("a.txt", "a.jsonl", "a.parquet", "a.txt.gz"):
        make(tmp_path / name)
        with pytest.raises(UserError):
            list(open_source(str(tmp_path / name)).documents())
    readers = {
        "m.safetensors": sources.read,
        "tokenizer.json": lambda p: load_tokenizer(p.parent),
        "vocabulary": lambda p: Json(path=str(p)).fit(list),
        "recording.npz": lambda p: recorded.compare(None, None, p),
        "samples": read_samples,
    }
    for name, reader in readers.items():
        make(tmp_path / name)
        with pytest.raises(UserError):
            reader(tmp_path / name)
    make(tmp_path / digests.FILE)
    assert digests.fault(tmp_path) == "digests.json is missing or damaged"
    (tmp_path / digests.FILE).unlink()
    # A file of size 0, as a pipe and /dev/zero say they are.
    (tmp_path / digests.FILE).write_text('{"sha256": {"a.txt": [0, ""]}}')
    assert "cannot be read" in digests.fault(tmp_path)
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match="pipe or device"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_globs_end(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for i in range(30):
        (tmp_path / "in" / f"{i}.txt").write_text("x")
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.txt").write_text("x")
    found = find_files(f"{tmp_path}/**/*.txt")
    assert len(found) == 30 and not any("loop" in f or "hidden" in f for f in found)
    monkeypatch.setattr("ldd_jax.data.files.MOST_FILES", 20)
    for pattern in ("in/*.txt", "**/*"):
        with pytest.raises(UserError, match="matches more than 20 files"):
            find_files(f"{tmp_path}/{pattern}")
    assert MOST_FILES == 10_000


def table(path, values, **how):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": values}), path, compression="zstd", **how)
    return str(path)


def test_parquet_that_swells(tmp_path, monkeypatch):
    """One value of 3 MB in a kilobyte; one that every row means; more than is said."""
    monkeypatch.setattr(reading, "ALWAYS", MEGA)
    path = table(tmp_path / "one.parquet", ["x" * 3 * MEGA])
    with pytest.raises(UserError, match=r"bytes unpack to 3,1.*over 100 times"):
        list(open_source(path).documents())
    path = table(tmp_path / "rows.parquet", ["x" * 9_000] * 1_000)
    with pytest.raises(UserError, match="its rows hold over 100 times its size"):
        list(open_source(path).documents())
    monkeypatch.setattr(reading, "LONGEST_TEXT", 1000)
    path = table(tmp_path / "long.parquet", ["short", "x" * 2000], use_dictionary=False)
    with pytest.raises(UserError, match="row 2: a value of more than 1,000"):
        list(open_source(path).documents())


def test_lines_and_packed_files_that_swell(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ALWAYS", MEGA)
    monkeypatch.setattr(reading, "LONGEST_TEXT", 1000)
    (tmp_path / "a.txt").write_text("x" * 1000 + "\n" + "y" * 1001)
    lines = numbered_lines(str(tmp_path / "a.txt"))
    assert next(lines) == (1, "x" * 1000)
    with pytest.raises(UserError, match=r"a.txt:2: a line of more than 1,000 characters"):
        next(lines)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"some words\n" * 500_000))
    with pytest.raises(UserError, match="unpacks to over 100 times"):
        list(numbered_lines(str(tmp_path / "b.txt.gz")))


def test_recordings_that_swell(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ALWAYS", MEGA)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(3 * MEGA, np.uint8))
    with pytest.raises(UserError, match="bytes unpack to 3,1"):
        recorded.compare(None, None, tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:  # 8 TB in its header
        good = np.lib.format.magic(1, 0)
        head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        archive.writestr("x.npy", good + struct.pack("<H", len(head) + 1) + head + b"\n")
    with pytest.raises(UserError, match="cannot read the recording"):
        recorded.compare(None, None, tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.zeros(3))
    with pytest.raises(UserError, match="no .npz file"):
        recorded.compare(None, None, tmp_path / "c.npy")
    np.savez(tmp_path / "d.npz", x=np.array([["1"]]))
    with pytest.raises(UserError, match="are no real numbers"):
        recorded.compare(None, None, tmp_path / "d.npz")


def test_token_ids_near_2_to_32(tmp_path):
    """An alphabet spans its largest id, and arrays over it are made."""
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 2}, "unk_token": "a"}
    (tmp_path / "v.json").write_text(json.dumps({"version": "1.0", "model": model}))
    with pytest.raises(UserError, match="gives one the id 4,294,967,294"):
        Json(path=str(tmp_path / "v.json")).fit(list)
    fuzzer = fuzz.Fuzzer(tmp_path, False)
    saved = json.loads((tmp_path / "tok" / "tokenizer.json").read_bytes())
    saved |= {"kind": "ids", "state": {"count": 2**32 - 1}, "size": 2**32 - 1}
    with pytest.raises(UserError, match=r"has 4,294,967,295 ids; 1 to 16,777,216 are read"):
        fuzzer.targets["tokenizer files"][0](json.dumps(saved).encode())
    (tmp_path / "s.jsonl").write_text(json.dumps({"text": "a", "tokens": [2**32 - 1], "n": 1}))
    assert read_samples(tmp_path / "s.jsonl")[1] is None
    (tmp_path / "s.jsonl").write_text(json.dumps({"text": "a", "tokens": [10**30]}))
    assert read_samples(tmp_path / "s.jsonl")[1] is None


def test_rows_that_no_machine_holds(tmp_path, monkeypatch):
    for length in (10**9, 2**20 + 1, 10**40):
        with pytest.raises(ValueError, match="must be 1 to 1,048,576 tokens"):
            Layout(length=length)
    (tmp_path / "a.txt").write_text("a\n" * 40 + "some more words\n")
    given = (*tools.corpus(tmp_path / "a.txt"), *tools.SIZES, f"--workdir={tmp_path / 'run'}")
    for field, value, words in (
        ("data.length", 10**9, "1,048,576"),
        ("data.length", 10**18, "numbers lie between"),
        ("training.batch_size", 10**9, "a batch has more than 268,435,456"),
        ("evaluation.batch_size", 10**9, "a batch has more than"),
        ("sampling.batch_size", 10**9, "a batch has more than"),
        ("training.num_steps", 2**31, "below 2^31"),
    ):
        out = tools.call("train", tools.recipe("mdlm"), *given, f"--config.{field}={value}")
        assert (out.status, out.err.count("\n")) == (2, 1) and words in out.err, out
    monkeypatch.setattr("ldd_jax.data.packing.MOST_PADDING", 1000)
    with pytest.raises(UserError, match="the rest is padding; give a smaller data.length"):
        TextData(path=str(tmp_path / "a.txt"), split="line", length=500, mode="padded").load()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands there twice"),
        (b'{"a": ' + b"1" * 5000 + b"}", "5,000 digits"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b"[" * 100_000, "nested too deep"),
        (b'"\xff"', "invalid start byte"),
    ],
)
def test_json_files(text, words, tmp_path):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ValueError, match=words):
        reading.read_json(tmp_path / "a.json")
    with pytest.raises(OSError, match="more than 2 bytes"):
        reading.read_json(tmp_path / "a.json", 2)


@pytest.mark.parametrize(
    ("error", "status"),
    [(MemoryError(), 1), (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 1), (RuntimeError("x"), None)],
)
def test_memory_that_runs_out(error, status, monkeypatch):
    """One line; any other error of the program's own keeps its trace."""
    command = command_line.Command("fails", lambda values: None, mock.Mock(side_effect=error))
    monkeypatch.setitem(main.COMMANDS, "plan", command)
    if status is None:
        with pytest.raises(RuntimeError, match="x"):
            tools.call("plan")
        return
    out = tools.call("plan")
    assert out.status == status and out.err.startswith("ldd_jax: out of memory")
    assert out.err.count("\n") == 1


# --- PyTorch archives; with torch (make extras) ----------------------------------------------


def torch_file(path, tensors, **more):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": tensors, **more}, path)
    return path


def test_expanded_tensors(tmp_path):
    """4.6 GB from 1.4 kB: a view repeats one number without end, or a tensor has many names."""
    torch = pytest.importorskip("torch")
    one = torch.zeros(1)
    path = torch_file(tmp_path / "a.ckpt", {"vocab_embed.embedding": one.expand(34_000, 34_000)})
    with pytest.raises(UserError, match="its tensors claim 4,624,000,000"):
        sources.read(path)
    same = torch.zeros(10_000)
    path = torch_file(tmp_path / "b.ckpt", {f"n{i}": same for i in range(1000)})
    with pytest.raises(UserError, match="its tensors claim 40,000,000"):
        sources.read(path)
    w = {n: torch.from_numpy(a) for n, a in weights().items()}
    path = torch_file(tmp_path / "c.ckpt", w, ema=[one.expand(10**6, 10**6)] * len(w))
    with pytest.raises(UserError, match="its tensors claim"):
        sources.read(path)


def strange(torch):
    yield "meta", torch.zeros(2, device="meta")
    yield "sparse", torch.zeros(2, 2).to_sparse()
    yield "quantized", torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)
    yield "conj", torch.zeros(2, dtype=torch.complex64).conj()
    yield "neg", torch.zeros(2, dtype=torch.complex64).conj().imag
    yield "float8", torch.zeros(2).to(torch.float8_e4m3fn)
    yield "empty", torch.zeros(0, 10**12)


def test_strange_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    for name, tensor in strange(torch):
        path = torch_file(tmp_path / f"{name}.ckpt", {"vocab_embed.embedding": tensor})
        with pytest.raises(UserError) as caught:
            sources.read(path)
        assert "\n" not in str(caught.value), name


def test_nested_lists_with_shared_references(tmp_path):
    torch = pytest.importorskip("torch")
    nested = ["x"]
    for _ in range(11):
        nested = [nested] * 30
    w = {n: torch.from_numpy(a) for n, a in weights().items()}
    path = torch_file(tmp_path / "a.ckpt", w, hyper_parameters={"config": {"a": nested}})
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match="more than 100,000 entries"):
        sources.read(path)
