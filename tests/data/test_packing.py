from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes
from ldd_jax.data.packing import Layout, Packer, collect, entropy

documents = st.lists(st.text("abc", max_size=12), max_size=12)
ALL = ("bos", "eos", "pad")


def stream(tokenizer, texts, layout):
    pieces = []
    for text in texts:
        ids = tokenizer.encode(text)
        ids = [tokenizer.bos] * layout.bos + ids + [tokenizer.eos] * layout.eos
        pieces.append(ids)
    return pieces


@settings(max_examples=80, deadline=None)
@given(documents, st.integers(1, 9), st.booleans(), st.booleans(), st.integers(1, 3))
def test_packed_rows_are_the_stream(texts, length, bos, eos, block):
    layout = Layout(length=length, bos=bos, eos=eos, segments=True)
    tokenizer = Bytes().fit(list, needs=ALL)
    packer = Packer(layout, tokenizer)
    rows = collect(packer, texts, block=block)
    pieces = [p for p in stream(tokenizer, texts, layout) if p]
    flat = [i for p in pieces for i in p]
    owner = [n for n, p in enumerate(pieces) for _ in p]
    whole = len(flat) // length * length
    assert rows.tokens.reshape(-1).tolist() == flat[:whole]
    assert rows.tokens.dtype == np.uint16 and rows.dropped == len(flat) - whole
    assert (rows.token_count, rows.documents) == (len(flat), len(pieces))
    for i in range(len(rows)):
        row = rows[i]
        own = owner[i * length : (i + 1) * length]
        assert row["segment"].tolist() == [o - own[0] + 1 for o in own]
        assert not row["keep"].any() and (row["weight"] == 1).all()
        assert row["tokens"].dtype == np.int32 and row["weight"].dtype == np.float32
    expected = np.bincount(np.asarray(flat[:whole], int), minlength=tokenizer.size)
    assert rows.counts.tolist() == expected.tolist()


@settings(max_examples=80, deadline=None)
@given(documents, st.integers(1, 9), st.booleans(), st.sampled_from(["ignore", "eos_in_loss"]))
def test_padded_rows_lose_nothing(texts, length, eos, pad):
    layout = Layout(length=length, mode="padded", pad=pad, eos=eos)
    tokenizer = Bytes().fit(list, needs=layout.needs)
    rows = collect(Packer(layout, tokenizer), texts)
    at = 0
    for piece in stream(tokenizer, texts, layout):
        for start in range(0, len(piece), length):
            part, row = piece[start : start + length], rows[at]
            at += 1
            real = np.arange(length) < len(part)
            assert row["tokens"][real].tolist() == part
            if pad == "ignore":
                assert (row["tokens"][~real] == tokenizer.pad).all()
                assert (row["keep"] == ~real).all() and (row["weight"] == real).all()
                assert (row["segment"] == real).all()
            else:
                assert (row["tokens"][~real] == tokenizer.eos).all()
                assert not row["keep"].any() and row["weight"].all() and "segment" not in row
    assert at == len(rows) and rows.dropped == 0
    assert rows.counts.sum() == sum(rows[i]["weight"].sum() for i in range(len(rows)))


def test_needs_and_refusals():
    assert Layout().needs == ("eos",) and Layout(eos=False).needs == ()
    assert Layout(mode="padded", eos=False).needs == ("pad",)
    assert Layout(mode="padded", eos=False, pad="eos_in_loss").needs == ("eos",)
    assert Layout(bos=True).needs == ("bos", "eos") and not Layout().has_segments
    for fields, match in (
        ({"length": 0}, "length=0"),
        ({"mode": "pack"}, "did you mean 'packed'"),
        ({"pad": "eos"}, "allowed: eos_in_loss, ignore"),
    ):
        with pytest.raises(ValueError, match=match):
            Layout(**fields)
    with pytest.raises(UserError, match="has no eos token"):
        Packer(Layout(), Bytes().fit(list, needs=()))


def test_ids_out_of_range_are_refused():
    tokenizer = Bytes().fit(list)
    tokenizer._encode = lambda text, start: [5, tokenizer.size]
    with pytest.raises(UserError, match="gave id 258, but it has only 258"):
        collect(Packer(Layout(length=2), tokenizer), ["x"])


def test_large_vocabularies_take_four_bytes():
    tokenizer = Bytes().fit(list)
    tokenizer.size = (1 << 16) + 1
    tokenizer._encode = lambda text, start: [1 << 16, 3]
    rows = collect(Packer(Layout(length=2, eos=False), tokenizer), ["x"])
    assert rows.tokens.dtype == np.uint32 and rows[0]["tokens"].tolist() == [1 << 16, 3]


def test_entropy():
    assert entropy(np.array([1, 1, 0, 2])) == pytest.approx(1.5 * np.log(2))
    assert entropy(np.array([4, 0])) == 0.0 and np.isnan(entropy(np.zeros(3)))
