"""Documents encoded in batches, beside the thread that packs: the same ids, order and errors."""

from __future__ import annotations

import itertools
import sys
import threading

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, Json, TextData, encoding, prepare
from ldd_jax.data.packing import Layout, Packer


@pytest.fixture(scope="module")
def json_tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=letters
    )
    made.train_from_iterator(["the old house by the river"] * 4, trainer)
    made.enable_padding(length=64)  # what a file asks for a model's input, no text has
    made.save(str(path))
    return Json(path=str(path), eos="<eos>")


TEXTS = ["the house", "<eos> is no end", "", "Ünïcödé 漢字", "a <eos>", "by the river " * 9]


def test_a_batch_is_each_text_by_itself(json_tokenizer):
    tokenizer = json_tokenizer.fit(lambda: (), needs=("eos",))
    assert tokenizer.apart and not Bytes().fit(lambda: ()).apart
    found = tokenizer.encode_batch(TEXTS)
    assert found == [tokenizer.encode(t) for t in TEXTS]
    assert tokenizer.eos not in itertools.chain.from_iterable(found)
    with pytest.raises(UserError, match="is not UTF-8"):
        tokenizer.encode_batch(["good", "\ud800"])


def test_order_and_counts_are_those_of_one_by_one(json_tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "TOGETHER", 40)
    tokenizer = json_tokenizer.fit(lambda: (), needs=("eos",))
    layout, texts = Layout(length=16, bos=False, eos=True), [*TEXTS, *TEXTS[::-1]] * 5
    found = list(encoding.encoded(layout, tokenizer, iter(texts)))
    for ids, text in zip(found, texts, strict=True):
        np.testing.assert_array_equal(ids.tokens, [*tokenizer.encode(text), tokenizer.eos])
        assert ids.tokens.dtype == np.uint16 and ids.unknown == tokenizer.lost(text)
    packer = Packer(layout, tokenizer)
    rows = list(packer.rows(iter(texts)))
    flat = np.concatenate([i.tokens for i in found])
    np.testing.assert_array_equal(np.concatenate([r.tokens for r in rows]), flat[: len(rows) * 16])
    assert packer.documents == len(texts) and packer.tokens == len(flat)


def test_it_reads_no_further_than_it_must(json_tokenizer, monkeypatch):
    """A few batches ahead, whatever the length; whoever stops leaves no thread behind."""
    monkeypatch.setattr(encoding, "TOGETHER", 10)
    tokenizer, read = json_tokenizer.fit(lambda: (), needs=("eos",)), []

    def endless():
        for i in itertools.count():
            read.append(i)
            yield f"document {i}"

    before = threading.active_count()
    some = encoding.encoded(Layout(), tokenizer, endless())
    assert [len(next(some).tokens) for _ in range(5)]
    assert len(read) <= 5 + encoding.AHEAD + 1 and threading.active_count() == before + 1
    some.close()
    assert threading.active_count() == before


def test_an_error_comes_from_where_it_arises(json_tokenizer):
    tokenizer = json_tokenizer.fit(lambda: (), needs=("eos",))
    tokenizer.encode_batch = lambda texts: [[tokenizer.size] for _ in texts]
    with pytest.raises(UserError, match="its file is damaged"):
        list(encoding.encoded(Layout(), tokenizer, ["a"]))


def test_prepared_bytes_do_not_depend_on_threads(json_tokenizer, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"line {i} of the old house" for i in range(300)))
    data = TextData(path=str(text), split="line", length=32, tokenizer=json_tokenizer)
    kind = type(json_tokenizer.fit(lambda: (), needs=("eos",)))
    for name, apart in (("one", False), ("other", True)):
        monkeypatch.setattr(kind, "apart", apart)
        prepare(data, tmp_path / name, shards=3)
    files = lambda name: {p.name: p.read_bytes() for p in (tmp_path / name).glob("*.*")}
    assert files("one") == files("other") and len(files("one")) >= 5


def test_beam_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree " * 30)
    data = TextData(path=str(tmp_path / "a.txt"), split="line", length=8, tokenizer=Bytes())
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'ldd-jax\[beam\]'"):
        prepare(data, tmp_path / "out", engine="beam")
    with pytest.raises(UserError, match="engine 'beem'"):
        prepare(data, tmp_path / "out", engine="beem")
    assert not (tmp_path / "out").exists()
