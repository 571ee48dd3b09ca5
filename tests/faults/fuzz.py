"""Random, mutated and hostile inputs to every reader: refused in words or read, nothing else.

A target is a function of bytes that may raise UserError and nothing else, and leaves its folder's
other files alone.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ldd_jax import tasks
from ldd_jax.bench.judging import read_samples
from ldd_jax.cli.main import main
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, Characters, load_tokenizer
from ldd_jax.data.labelled import LabelledText
from ldd_jax.data.packing import Layout, Row
from ldd_jax.data.prepared import Codec, read_prepared
from ldd_jax.data.problems import ProblemData
from ldd_jax.data.sources import open_source
from ldd_jax.interop import sources
from ldd_jax.training import digests
from ldd_jax.training.metrics import read_metrics
from tests.faults import strange
from tests.faults.mutations import mutate
from tests.faults.workdirs import Workdirs


class Fuzzer:
    """All targets in one folder; `run` tries a number of inputs on one of them."""

    NAMES = (
        "text files",
        "JSON lines",
        "Parquet",
        "tokenizer files",
        "tokenizers, text to ids and back",
        "manifests",
        "records of shards",
        "component strings",
        "config overrides",
        "safetensors",
        "sample files",
        "metrics files",
        "digests",
        "task verifiers",
        "gzip",
        "problem files",
        "labelled text",
        "features of TFDS folders",
        "callers of a roll call",
        *Workdirs.NAMES,
    )
    # Where an input takes long, one in so many is tried.
    SLOW = {"claims over links": 2, "checkpoint folders": 120}

    def __init__(self, folder: Path, workdirs: bool = True):
        self.folder = folder
        for name in ("tok", "prepared", "ckpt", "prepared/tokenizer"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        tokenizer = Characters().fit(lambda: ["some words, and others"])
        tokenizer.save(folder / "tok")
        tokenizer.save(folder / "prepared" / "tokenizer")
        self.tokenizer, self.bytes = tokenizer, Bytes().fit(list)
        self.codec = Codec(layout=Layout(length=8), size=300)
        self.stdin: io.StringIO = io.StringIO()
        jsonl = b'{"text": "one"}\n{"text": "two \\u00e9", "n": 3}\n'
        shard = {"file": "train-00000-of-00001.array_record", "records": 1, "bytes": 9,
                 "sha256": "0" * 64}  # fmt: skip
        split = {"documents": 1, "tokens": 8, "dropped": 0, "unigram_entropy": 1.0}
        other = dict(shard, file="validation-00000-of-00001.array_record")
        manifest = {
            "format": "ldd_jax.prepared", "version": 1, "fingerprint": "f", "note": "n",
            "source": "s", "layout": {"length": 8},
            "tokenizer": {"size": tokenizer.size, "digest": tokenizer.digest},
            "splits": {"train": {**split, "shards": [shard]},
                       "validation": {**split, "shards": [other]}},
        }  # fmt: skip
        saved = (folder / "tok" / "tokenizer.json").read_bytes()
        record = self.codec.encode(Row(np.arange(8), 8, np.ones(8, np.int32)))
        self.targets: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
            "text files": (self.text, [b"one line\nand two\n\nmore\n", "h\u00e9llo\n".encode()]),
            "gzip": (self.packed, [gzip.compress(b"one line\nand two\n" * n) for n in (1, 99)]),
            "problem files": (self.problems, [b'{"input": "1,2,3", "output": "1+2=3"}\n']),
            "labelled text": (
                self.labelled,
                [b'{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'],
            ),
            "JSON lines": (self.json_lines, [jsonl, jsonl * 3]),
            "Parquet": (self.parquet, [parquet()]),
            "tokenizer files": (self.tokenizer_file, [saved]),
            "tokenizers, text to ids and back": (self.round_trip, ["a w\u00e9rd".encode()]),
            "manifests": (self.manifest, [json.dumps(manifest).encode()]),
            "records of shards": (self.record, [record]),
            "component strings": (
                self.component,
                [b"ancestral", b"remdm:eta=1", b"theta_rk2:theta=0.5", b"countdown:numbers=3"],
            ),
            "config overrides": (
                self.override,
                [
                    b"--config.optim.lr=1e-3",
                    b"--config.model.width=16",
                    b"--config.seed=3",
                    b"--config.model.latent=true",
                    b"--workdir=x",
                ],
            ),  # fmt: skip
            "features of TFDS folders": (
                lambda data: strange.features(folder, data),
                [json.dumps(f).encode() for f in (strange.FEATURES, strange.LEGACY)],
            ),
            "callers of a roll call": (
                strange.caller,
                [b'{"rank": 1, "host": "h", "proof": "00"}\n', b'{"rank": 2}\n'],
            ),
            "safetensors": (self.safetensors, [_safetensors()]),
            "sample files": (self.samples, [jsonl, b"plain text\nanother\n"]),
            "metrics files": (self.metrics, [b'{"step": 1, "loss": 2.0}\n{"step": 2}\n']),
            "digests": (self.digests, [b'{"sha256": {"a": [1, "00"]}}']),
            "task verifiers": (
                self.verify,
                [
                    b"86,28,13,31,96|86+28=114,31-13=18,114-18=96",
                    b"1,2,3,4|(1+2+3)*4",
                    b"1" * 16 + b"|" + b"1234341221434321",
                ],
            ),  # fmt: skip
        }

        if workdirs:  # two seconds to make
            self.targets |= Workdirs(folder / "workdirs").targets

    def path(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def text(self, data: bytes) -> object:
        return list(open_source(self.path("t.txt", data), split="line").documents())

    def packed(self, data: bytes) -> object:
        return list(open_source(self.path("t.txt.gz", data), split="paragraph").documents())

    def problems(self, data: bytes) -> object:
        path = self.path("p.jsonl", data)
        return ProblemData(path=path, validation_path=path, length=32).load()

    def labelled(self, data: bytes) -> object:
        path = self.path("l.jsonl", data)
        return LabelledText(
            path=path, validation_path=path, classes=("a", "b"), length=8, tokenizer=Bytes()
        ).load()

    def json_lines(self, data: bytes) -> object:
        return list(open_source(self.path("t.jsonl", data)).documents())

    def parquet(self, data: bytes) -> object:
        return list(open_source(self.path("t.parquet", data)).documents())

    def tokenizer_file(self, data: bytes) -> object:
        self.path("tok/tokenizer.json", data)
        return load_tokenizer(self.folder / "tok").encode("some words")

    def round_trip(self, data: bytes) -> object:
        text = data.decode("utf-8", "replace")
        for tokenizer in (self.tokenizer, self.bytes):
            ids = tokenizer.encode(text)
            assert all(0 <= i < tokenizer.size for i in ids)
            tokenizer.decode(ids)
            tokenizer.encode_template(text)
        assert self.bytes.decode(self.bytes.encode(text)) == text
        return self.bytes.decode(list(data))

    def manifest(self, data: bytes) -> object:
        self.path("prepared/manifest.json", data)
        return read_prepared(self.folder / "prepared")

    def record(self, data: bytes) -> object:
        return self.codec.decode(data)

    def component(self, data: bytes) -> object:
        text = data.decode("utf-8", "replace")
        return registry.parse("task" if len(data) % 2 else "step", text)

    def override(self, data: bytes) -> object:
        """Through the parser of flags; `--nowhere` keeps what is left from running."""
        text = data.decode("utf-8", "replace").replace("\0", "")
        out = io.StringIO()
        with contextlib.redirect_stderr(out), contextlib.redirect_stdout(io.StringIO()):
            status = main(["sample", text, "--nowhere"])
        assert status == 2 or text in ("-h", "--help"), status
        assert "Traceback" not in out.getvalue()
        return None

    def safetensors(self, data: bytes) -> object:
        return sources.read_safetensors(Path(self.path("m.safetensors", data)))

    def samples(self, data: bytes) -> object:
        return read_samples(Path(self.path("s.jsonl", data)))

    def metrics(self, data: bytes) -> object:
        return read_metrics(Path(self.path("metrics.jsonl", data)))

    def digests(self, data: bytes) -> object:
        self.path("ckpt/digests.json", data)
        assert isinstance(digests.fault(self.folder / "ckpt"), str)
        return None

    def verify(self, data: bytes) -> object:
        problem, _, solution = data.decode("utf-8", "replace").partition(tasks.SEPARATOR)
        for task in (
            tasks.Countdown(),
            tasks.Game24(),
            tasks.Sudoku(size=4, givens=6),
            tasks.Sudoku(),
        ):
            assert task.strict(problem, solution) in (True, False)
            assert task.legacy(problem, solution) in (True, False)
        return None

    def run(self, name: str, count: int, seed: int = 0, seconds: float = 1e9) -> tuple[int, int]:
        """(inputs tried, refused).

        Raises:
          AssertionError: naming the input that raised something else, or left files behind.
        """
        target, seeds = self.targets[name]
        count = -(-count // self.SLOW.get(name, 1))
        draw, refused, tried = random.Random(f"{name} {seed}"), 0, 0
        files = None
        until = time.monotonic() + seconds
        for tried in range(1, count + 1):
            data = mutate(draw, seeds) if tried > 1 else seeds[0]
            try:
                target(data)
            except UserError as error:
                refused += 1
                assert str(error).strip(), data
            except BaseException as error:
                raise AssertionError(f"{name}: {data!r} raised {error!r}") from error
            if tried % 500 == 1:
                found = sorted(p.name for p in self.folder.rglob("*"))
                assert files in (None, found), f"{name} left files: {set(found) - set(files)}"
                files = found
            if time.monotonic() > until:
                break
        return tried, refused


def parquet() -> bytes:
    """A table of two texts."""
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), out)
    return out.getvalue()


def _safetensors() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int32)})


def lying_headers() -> list[bytes]:
    """Safetensors whose header is too long, a bomb, out of bounds, overlapping, or no JSON."""
    body = struct.pack("<6f", *range(6))
    make = lambda header, size=None: struct.pack("<Q", size or len(header)) + header + body
    entry = lambda offsets, shape, kind="F32": json.dumps(
        {"a": {"dtype": kind, "shape": shape, "data_offsets": offsets}}
    ).encode()
    return [
        make(b"{}", 2**63),
        make(b"{}", 2**40),
        make(b"{}", 3),
        make(b"[" * 100_000),
        make(entry([0, 24], [2**40, 2**40])),
        make(entry([0, 24], [-1, 6])),
        make(entry([0, 2**60], [6])),
        make(entry([24, 0], [6])),
        make(entry([0, 24], [6], "F99")),
        make(entry([0, 12], [6])),
        b"",
        b"\0" * 7,
        make(b"not json"),
    ]


def everything(count: int, seconds: float = 1e9, seed: int = 0) -> dict[str, tuple[int, int]]:
    """`count` inputs for each target, or as many as fit into `seconds` each."""
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        return {name: fuzzer.run(name, count, seed, seconds) for name in fuzzer.targets}
