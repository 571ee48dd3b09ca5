"""What a tokenizer does not know is counted and stated, warned of, and refused where it is much."""

from __future__ import annotations

import json

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, Characters, LabelledText, TextData, prepare
from ldd_jax.evaluation.likelihood import Estimate
from tests.data.test_templates import json_tokenizer, sentencepiece_model

WORDS = "the quick brown fox jumps over the lazy dog\n"


def corpus(tmp_path, strange, of=2000, **fields):
    """A text of which `strange` characters of `of` are not in its alphabet."""
    text = (WORDS * 100)[: of - strange]
    at = [i * of // strange for i in range(strange)] if strange else []
    signs = list(text)
    for i in at:
        signs.insert(i, chr(0x4E00 + i))
    path = tmp_path / f"text-{strange}.txt"
    path.write_text("".join(signs))
    tokenizer = Characters(max_size=30).fit(lambda: [WORDS])
    return TextData(path=str(path), split="line", length=16, **fields), tokenizer


@pytest.mark.parametrize(("strange", "warns"), [(0, False), (10, False), (60, True)])
def test_the_share_is_stated_and_warned_of(tmp_path, strange, warns):
    data, tokenizer = corpus(tmp_path, strange)
    whole = data.whole(tokenizer)
    rows = whole.validation
    assert rows.unknown == strange and whole.unknown_share() == strange / rows.token_count
    said = whole.describe()
    assert f"({strange / rows.token_count:.2%} unknown symbols)" in said
    assert ("warning: " in said and "tokenizer=bytes" in said) == warns
    loaded = data.load(tokenizer)
    assert loaded.train.unknown + loaded.validation.unknown == strange


def test_more_than_a_fifth_is_refused_by_every_reader(tmp_path):
    data, tokenizer = corpus(tmp_path, 700)
    words = "unknown to the characters tokenizer.*tokenizer=bytes"
    for read in (data.whole, data.load, lambda t: prepare(data, tmp_path / "out", tokenizer=t)):
        with pytest.raises(UserError, match=words):
            read(tokenizer)
    assert not (tmp_path / "out").exists()
    lines = [{"text": "\u4e00" * 20, "label": "a"}, {"text": "fox", "label": "a"}] * 40
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    labelled = LabelledText(path=str(tmp_path / "l.jsonl"), classes=("a",), length=16)
    with pytest.raises(UserError, match=words):
        labelled.whole(tokenizer)
    assert data.whole(Bytes().fit(list)).unknown_share() == 0


def test_an_alphabet_that_is_too_small_for_its_own_text_is_refused(tmp_path):
    (tmp_path / "zh.txt").write_text("\n".join("".join(chr(0x4E00 + (i * 60 + j) % 4000)
        for j in range(60)) for i in range(200)))  # fmt: skip
    with pytest.raises(UserError, match="unknown to the characters tokenizer"):
        TextData(path=str(tmp_path / "zh.txt"), split="line").load()


def test_a_prepared_folder_remembers_its_share(tmp_path):
    data, tokenizer = corpus(tmp_path, 60)
    made = prepare(data, tmp_path / "out", tokenizer=tokenizer)
    assert made.train.unknown + made.validation.unknown == 60 and "warning" in made.describe()
    manifest = tmp_path / "out" / "manifest.json"
    old = json.loads(manifest.read_text())
    for split in old["splits"].values():
        del split["unknown"]  # a folder from before
    manifest.write_text(json.dumps(old))
    again = TextData(path=str(tmp_path / "out"), length=16).load()
    assert again.unknown_share() is None and "unknown symbols not counted" in again.describe()


def test_who_has_an_unknown_token():
    assert Bytes().fit(list).unknown is None and json_tokenizer("bytes").unknown is None
    own = sentencepiece_model()
    assert own.unknown == 0 and own.unknown not in own.encode("\u4e00")  # bytes know it


def test_what_is_dropped_without_a_token_counts_as_unknown(tmp_path):
    """A BPE without an unknown token and without bytes leaves signs out in silence."""
    tokenizer = json_tokenizer("always")
    assert tokenizer.unknown is None and tokenizer.lost("the cat sat, a dog") == 0
    assert tokenizer.lost("the \u4e00cat \u4e8c\u4e09") == 3
    assert json_tokenizer("bytes").lost("\u4e00") == 0
    (tmp_path / "t.txt").write_text("the cat sat on the mat \u4e00\n" * 40)
    data = TextData(path=str(tmp_path / "t.txt"), split="line", length=8, eos=False)
    assert data.whole(tokenizer).validation.unknown == 40
    (tmp_path / "t.txt").write_text("the cat \u4e00\u4e00\u4e00\u4e00\n" * 40)
    with pytest.raises(UserError, match="unknown to the json tokenizer"):
        data.whole(tokenizer)


def test_every_evaluation_states_it():
    found = Estimate(2.0, 0.1, 0.1, 100, 10, 1, 1, 1, unknown=0.0312)
    assert "3.12% unknown symbols" in str(found) and found.record()["unknown_share"] == 0.0312
