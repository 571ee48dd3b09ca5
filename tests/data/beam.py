"""Shards by Apache Beam's direct runner are those that are written here, to the byte.

Part of `make extras`: needs apache-beam.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, Characters, TextData, prepare

OPTIONS = "--runner=DirectRunner --direct_num_workers=1"


@pytest.fixture
def texts(tmp_path):
    """Five files of very different lengths, one of them blank."""
    draw = np.random.default_rng(0)
    for i, count in enumerate((40, 1, 0, 25, 7)):
        lines = ["".join(draw.choice(list("abcdé "), draw.integers(1, 90))) for _ in range(count)]
        (tmp_path / f"{i}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "fields",
    [
        dict(tokenizer=Bytes(), length=32),
        dict(length=16, segments=True, bos=True, validation_fraction=0.3),
        dict(tokenizer=Characters(max_size=6), length=16, mode="padded", pad="ignore"),
        dict(tokenizer=Bytes(), length=8, mode="padded", pad="eos_in_loss", validation_path="own"),
    ],
)
def test_the_same_folder(texts, tmp_path, fields):
    if fields.get("validation_path"):
        (tmp_path / "own").write_text("\n".join("held out text" for _ in range(30)))
        fields = fields | {"validation_path": str(tmp_path / "own")}
    data = TextData(path=f"{texts}/*.txt", split="line", **fields)
    for shards in (3, 50):
        here, there = (tmp_path / f"{name}{shards}" for name in ("here", "there"))
        prepare(data, here, shards=shards)
        prepare(data, there, shards=shards, engine="beam", options=OPTIONS)
        one, other = files(here), files(there)
        assert one.keys() == other.keys()
        assert [n for n in one if one[n] != other[n]] == []
    assert len(json.loads(one["manifest.json"])["splits"]["train"]["shards"]) > 3


def test_machines_write_into_a_bucket(texts, tmp_path, bucket):
    """By themselves, and the manifest comes last; what breaks leaves nothing."""
    data = TextData(path=f"{texts}/*.txt", split="line", tokenizer=Bytes(), length=32)
    prepare(data, tmp_path / "here", shards=2)
    place = bucket / "rows"
    prepare(data, str(place), shards=2, engine="beam", options=OPTIONS)
    one = files(tmp_path / "here")
    assert {n: (place / n).read_bytes() for n in place.below()} == one
    with pytest.raises(UserError, match="fewer than one row"):
        long = TextData(path=f"{texts}/*.txt", split="line", tokenizer=Bytes(), length=9999)
        prepare(long, str(bucket / "none"), engine="beam", options=OPTIONS)
    assert not list((bucket / "none").below())


def test_what_is_one_piece_is_refused(tmp_path):
    (tmp_path / "one.txt").write_text("a single document " * 40)
    data = TextData(path=str(tmp_path / "one.txt"), length=8, tokenizer=Bytes())
    with pytest.raises(UserError, match="--engine=local"):
        prepare(data, tmp_path / "out", engine="beam", options=OPTIONS)
    assert not (tmp_path / "out").exists()
