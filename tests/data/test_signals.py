"""Rows with a signal: a chain of known law, pairs of one's own, the shapes of a text."""

import json

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import ChainData, PairData, ShapeData
from ldd_jax.data.shapes import SHAPES, shape
from ldd_jax.data.signal_chain import chain, codes


def test_the_chain_is_what_it_says():
    data = ChainData(states=4, noise=0.3, train_count=3000, validation_count=500, length=16)
    corpus = data.load()
    c, x = corpus.train.tokens, corpus.train.signal
    counts = np.zeros((4, 4))
    np.add.at(counts, (c[:, :-1].ravel(), c[:, 1:].ravel()), 1)
    want = chain(4, 0.3, 0)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), want, atol=0.04)
    off = x - codes(4)[c]
    assert abs(off.mean()) < 0.002 and abs(off.std() - 0.3) < 0.002
    assert abs((c[:, 0] == 0).mean() - 0.25) < 0.03
    row = corpus.train[5]
    assert row["signal"].shape == (16, 4) and row["signal"].dtype == np.float32
    assert not row["keep"].any() and "segment" not in row
    assert corpus.channels == 4 and corpus.tokenizer.decode([0, 3]) == "ad"
    assert len(corpus.validation) == 500
    assert not (corpus.validation.tokens[:100] == c[:100]).all()
    assert data.load().fingerprint == corpus.fingerprint
    assert ChainData(states=4, noise=0.4).load().fingerprint != corpus.fingerprint


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"states": 1}, "states is 1"),
        ({"noise": 0.0}, "above 0"),
        ({"train_count": 2**30}, "do not fit"),
        ({"length": 0}, "length"),
    ],
)
def test_chains_that_cannot_be(fields, words):
    with pytest.raises(ValueError, match=words):
        ChainData(**fields)


def write(path, records):
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return str(path)


def pair(text, seed=0):
    rng = np.random.default_rng(seed)
    return {"text": text, "signal": rng.normal(size=(len(text), 2)).tolist(), "more": 1}


def test_pairs_are_read_split_and_padded(tmp_path):
    words = [f"{i:02d}" + "x" * (i % 2) for i in range(60)]
    path = write(tmp_path / "p.jsonl", [pair(w, i) for i, w in enumerate(words)])
    data = PairData(path=path, channels=2, length=3, validation_fraction=0.3)
    corpus = data.load()
    assert corpus.train.documents + corpus.validation.documents == 60
    assert corpus.channels == 2 and corpus.validation.documents > 5
    rows = [corpus.train[i] for i in range(len(corpus.train))]
    short = next(r for r in rows if r["keep"].any())
    assert short["keep"].tolist() == [False, False, True] and not short["signal"][2].any()
    assert short["segment"].tolist() == [1, 1, 0] and short["weight"].tolist() == [1, 1, 0]
    by_text = {w: pair(w, i)["signal"] for i, w in enumerate(words)}
    for row in rows:
        text = corpus.tokenizer.decode(row["tokens"][~row["keep"]].tolist())
        np.testing.assert_allclose(row["signal"][~row["keep"]], by_text[text], rtol=1e-6)
    whole = PairData(path=path, channels=2, length=3, validation_path=path).load(corpus.tokenizer)
    assert len(whole.train) == len(whole.validation) == 60
    assert len(data.whole(corpus.tokenizer).train) == 60


@pytest.mark.parametrize(
    "record, words",
    [
        ("nonsense\n", "p.jsonl:2: not JSON"),
        ({"text": "ab"}, "p.jsonl:2: not JSON with keys text and signal"),
        ({"text": "ab", "signal": [[1, 2, 3]] * 2}, "list of 2 finite numbers"),
        ({"text": "ab", "signal": [[1, 2], [1]]}, "p.jsonl:2"),
        ({"text": "ab", "signal": [[1, 2], [1, float("nan")]]}, "list of 2 finite numbers"),
        ({"text": "", "signal": []}, "no text, or empty"),
        ({"text": 5, "signal": []}, "no text, or empty"),
        ({"text": "abc", "signal": [[1, 2]] * 2}, "has 3 tokens, but its signal 2 points"),
        ({"text": "abcde", "signal": [[1, 2]] * 5}, "raise data.length"),
    ],
)
def test_pairs_that_are_refused(record, words, tmp_path):
    path = write(tmp_path / "p.jsonl", [pair("abcd"), record])
    data = PairData(path=path, validation_path=path, channels=2, length=4)
    with pytest.raises(UserError, match=words):
        data.load()


def test_pairs_without_a_file_or_without_a_split(tmp_path):
    with pytest.raises(UserError, match="data.path is empty"):
        PairData().load()
    with pytest.raises(UserError, match="no such file"):
        PairData(path=str(tmp_path / "x")).check()
    path = write(tmp_path / "p.jsonl", [pair("ab")])
    with pytest.raises(UserError, match="too few different texts"):
        PairData(path=path, channels=2, length=2).load()


def test_shapes_of_characters(tmp_path):
    assert len(SHAPES) == 6
    assert shape("E") == (1, 0, 1, 0, 0, 0) and shape("\u00e9") == (1, 0, 0, 0, 0, 0)
    assert shape("x") == (0, 1, 0, 0, 0, 0) and shape("7") == (0, 0, 0, 1, 0, 0)
    assert shape(" ") == (0, 0, 0, 0, 1, 0) and shape("!") == (0, 0, 0, 0, 0, 1)
    assert shape("") == (0,) * 6
    path = tmp_path / "t.txt"
    path.write_text("A cat sat on 3 mats. " * 40)
    corpus = ShapeData(path=str(path), length=8, eos=False).load()
    row = corpus.train[0]
    text = corpus.tokenizer.decode(row["tokens"].tolist())
    np.testing.assert_array_equal(row["signal"], [shape(c) for c in text])
    assert corpus.channels == 6 and corpus.train.token_count > 100
    assert ShapeData(path=str(path), length=8, eos=False).whole(corpus.tokenizer).channels == 6
