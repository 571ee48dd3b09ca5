"""Mixtures: exact shares in every epoch, the order of any other rows, one tokenizer."""

from __future__ import annotations

import collections
import runpy

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import build, section
from ldd_jax.data import Bytes, Mixture, TextData, batches, prepare
from ldd_jax.data.mixture import Mixed
from ldd_jax.data.packing import MemoryRows
from tests.children import ROOT


def rows(first, count):
    """Rows of one token, numbered from `first`."""
    tokens = np.arange(first, first + count, dtype=np.uint16)[:, None]
    counts = np.bincount(tokens[:, 0], minlength=1000)
    one = np.ones(count, np.int32)
    given = dict(documents=count, token_count=count, dropped=0, counts=counts)
    return MemoryRows(tokens=tokens, filled=one, segment=None, **given)


def tokens(found):
    return [int(found[i]["tokens"][0]) for i in range(len(found))]


def test_every_row_is_dealt_and_shares_are_exact():
    """30 rows at 1/4, 10 at 3/4: 120 an epoch, of which the second's come nine times each."""
    mixed = Mixed(parts=(rows(0, 30), rows(500, 10)), weights=(1.0, 3.0), repeat=True)
    assert mixed.counts == (30, 90) and len(mixed) == 120
    often = collections.Counter(tokens(mixed))
    assert {often[i] for i in range(30)} == {1} and {often[500 + i] for i in range(10)} == {9}


def test_no_row_twice_where_errors_are_counted():
    mixed = Mixed(parts=(rows(0, 30), rows(500, 10)), weights=(1.0, 3.0), repeat=False)
    assert mixed.counts == (3, 10)
    assert tokens(mixed)[:3] == [0, 10, 20] and len(set(tokens(mixed))) == 13
    assert mixed.entropy == pytest.approx(np.log(13))


@pytest.mark.parametrize("weights", [(0.1, 0.2, 0.7), (5, 1, 1), (1 / 3, 1 / 3, 1 / 3)])
def test_shares_to_a_row(weights):
    mixed = Mixed(parts=(rows(0, 7), rows(100, 50), rows(300, 333)), weights=weights, repeat=True)
    share = np.asarray(mixed.counts) / len(mixed)
    assert np.abs(share - np.asarray(weights) / sum(weights)).max() <= 3 / len(mixed)
    assert all(n >= len(p) for n, p in zip(mixed.counts, mixed.parts))


def test_an_epoch_is_shuffled_and_resumed_like_any_other():
    mixed = Mixed(parts=(rows(0, 30), rows(500, 10)), weights=(1.0, 3.0), repeat=True)
    stream = lambda **k: batches(mixed, batch_size=12, seed=3, threads=0, **k)
    whole = stream()
    seen = [next(whole) for _ in range(15)]
    epoch = np.concatenate([b["z0"][:, 0] for b in seen[:10]])
    assert sorted(epoch) == sorted(tokens(mixed)) and list(epoch) != tokens(mixed)
    again = stream()
    again.set_state({"next_step": 7})
    parts = [stream(own=range(5)), stream(own=range(5, 12))]
    for part in parts:
        part.set_state({"next_step": 7})
    for want in seen[7:]:
        np.testing.assert_array_equal(next(again)["z0"], want["z0"])
        both = np.concatenate([next(part)["z0"] for part in parts])
        np.testing.assert_array_equal(both, want["z0"])


@pytest.fixture
def texts(tmp_path):
    for name, letters in (("a", "abc"), ("b", "xyz")):
        draw = np.random.default_rng(ord(name))
        lines = ["".join(draw.choice(list(letters), 20)) for _ in range(40)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    return [str(tmp_path / f"{n}.txt") for n in "ab"]


def test_one_tokenizer_for_all_texts(texts):
    given = dict(path=texts[0], others=(texts[1],), split="line", length=8, validation_fraction=0.3)
    config = section(Mixture, **given, weights=(3.0, 1.0))
    corpus = build("data", config).load()
    assert set("abcxyz") <= set(corpus.tokenizer.alphabet)
    own = lambda split: np.mean(
        [set(corpus.tokenizer.decode(r["tokens"])) & set("abc") != set()
         for r in map(corpus.rows(split).__getitem__, range(len(corpus.rows(split))))]
    )  # fmt: skip
    assert own("train") == pytest.approx(0.75, abs=0.02)
    assert own("validation") == pytest.approx(0.75, abs=0.1)
    assert "0.75 of" in corpus.note and texts[1] in corpus.source
    by_size = Mixture(**given).load()
    assert len(by_size.train) == sum(len(p) for p in by_size.train.parts)
    other = Mixture(**given | dict(others=(texts[0],))).load()
    assert other.fingerprint != by_size.fingerprint
    alone = TextData(path=texts[0], split="line", length=8, validation_fraction=0.3).load()
    np.testing.assert_array_equal(alone.train[3]["keep"], by_size.train[3]["keep"])


def test_prepared_folders_share_theirs(texts, tmp_path):
    folders = []
    for i, path in enumerate(texts):
        one = TextData(path=path, split="line", length=8, tokenizer=Bytes())
        prepare(one, tmp_path / str(i))
        folders.append(str(tmp_path / str(i)))
    mixture = Mixture(path=folders[0], others=(folders[1],), length=8, split="line")
    assert mixture.most_ids() == mixture.load().tokenizer.size == 257
    with pytest.raises(UserError, match="prepare each source by itself"):
        mixture.divide()
    apart = TextData(path=texts[1], split="line", length=8)
    prepare(apart, tmp_path / "apart")
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        Mixture(path=folders[0], others=(str(tmp_path / "apart"),), length=8, split="line").load()


def test_what_is_refused(texts):
    for fields, said in (
        (dict(others=("b",), weights=(1.0,)), "1 weights for 2 paths"),
        (dict(others=("b",), weights=(1.0, 0.0)), "each must be above 0"),
        (dict(others=("b",), validation_path="v"), "a mixture validates on all"),
    ):
        with pytest.raises(ValueError, match=said):
            Mixture(path="a", **fields)
    with pytest.raises(UserError, match="nothere"):
        Mixture(path=texts[0], others=("nothere.txt",)).check()


@pytest.mark.parametrize("name", ["text", "openwebtext"])
def test_recipes_take_it(name):
    module = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))
    assert module["get_config"]().data["name"] == "text"
    data = module["get_config"]("method=mdlm,source=mixture").data
    assert data["name"] == "mixture"
    data.update(dict(path="a", others=("b", "c"), weights=(0.5, 0.3, 0.2)))
    assert [source.path for source in build("data", data).sources] == ["a", "b", "c"]
