"""Detokenizers by example; a manifest's rows, hashes, policies and refusals."""

from __future__ import annotations

import hashlib
import json

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.data.detokenizers import DETOKENIZERS
from ldd_jax.data.zero_shot import read_manifest

EXAMPLES = [
    ("none", " as , it 's ", " as , it 's "),
    (
        "ptb",
        "mr. <unk> 's firm did n't pay $ N million N N N of workers ' wages N",
        "mr. ?'s firm didn't pay $1 million 1 1 1 of workers' wages N",
    ),
    ("ptb", r"a 1\/2 # N rise", "a 1/2 #1 rise"),
    (
        "wikitext",
        ' = = Career = = \n A 12 @-@ year @-@ old had 1 @,@ 000 pounds ; he said " yes , sir " . ',
        ' == Career ==\nA 12-year-old had 1,000 pounds; he said "yes, sir". ',
    ),
    ("wikitext", "3 @.@ 5 dogs ( twice ) at 5 ° C", "3.5 dogs (twice) at 5°C"),
    ("wikitext", "the dogs ' den and the cat 's bowl", "the dogs'den and the cat's bowl"),  # a flaw
    (
        "lm1b",
        '" It \'s fine , " she said , " and costs $ 5 , or ( so ) more . "',
        '"It\'s fine," she said, "and costs $5, or (so) more."',
    ),
    ("lm1b", "It was 3 : 1 at http : / / host ; end .", "It was 3: 1 at http://host; end."),
    ("lm1b", "he : a . b . c . why ?", "he: a. b . c. why?"),  # a flaw: every other stop
    ("lambada", " \u201cyes\u201d , he\u2019d said ``no'' \n", '\n"yes" , he\u2019d said ``no\'\''),
    ("scientific_papers", "we study 1 @-@ 2 ( a / b ) .", "we study 1-2 (a/b) ."),
]  # fmt: skip
TOKENIZER = CharacterTokenizer("abcdefgh ,'", needs=("eos", "bos"))


def test_every_detokenizer_has_an_example():
    assert {name for name, _, _ in EXAMPLES} == set(DETOKENIZERS)


@pytest.mark.parametrize("name, given, expected", EXAMPLES)
def test_detokenizers(name, given, expected):
    assert DETOKENIZERS[name](given) == expected


ENTRY = dict(path="a.txt", detokenizer="lm1b", packing="wrap", bos=False, eos=True)


def manifest(folder, *entries):
    (folder / "a.txt").write_text("ab , cd\n\nabc\ndefgh\n")
    path = folder / "m.json"
    full = [{"name": f"set{i}", **ENTRY, **e} for i, e in enumerate(entries)]
    path.write_text(json.dumps({"datasets": full}))
    return path


def shown(corpus):
    rows = [corpus.validation[i] for i in range(len(corpus.validation))]
    return [
        "".join(TOKENIZER.decode([t]) if not k else "_" for t, k in zip(r["tokens"], r["keep"]))
        for r in rows
    ]


def test_wrapped_and_by_document(tmp_path):
    ends = {"eos": True, "bos": True}
    path = manifest(tmp_path, {}, {"packing": "document", **ends}, {"eos": False})
    wrap, document, bare = (d.load(TOKENIZER, 5) for d in read_manifest(path))
    eos, bos = (TOKENIZER.decode([i]) for i in (TOKENIZER.eos, TOKENIZER.bos))
    assert shown(wrap) == ["ab, c", f"d{eos}abc", f"{eos}defg"]
    assert (wrap.validation.documents, wrap.validation.dropped) == (3, 2)
    assert shown(bare) == ["ab, c", "dabcd"] and bare.validation.dropped == 4
    assert shown(document) == [
        f"{bos}ab, ", f"cd{eos}__", f"{bos}abc{eos}", f"{bos}defg", f"h{eos}___",
    ]  # fmt: skip
    assert document.validation[1]["segment"].tolist() == [1, 1, 1, 0, 0]
    assert document.validation[1]["weight"].tolist() == [1, 1, 1, 0, 0]


def test_the_record_depends_on_everything(tmp_path):
    changes = [{}, {"eos": False}, {"packing": "document"}, {"detokenizer": "none"}]
    sets = read_manifest(manifest(tmp_path, *changes))
    told = [d.record(d.load(TOKENIZER, 5)) for d in sets]
    again = sets[0].record(sets[0].load(TOKENIZER, 4))
    keys = [r.pop("data_fingerprint") for r in (*told, again)]
    assert len(set(keys)) == 5
    digest = hashlib.sha256((tmp_path / "a.txt").read_bytes()).hexdigest()
    assert {r["sha256"] for r in told} == {digest}
    assert told[0]["texts"] == told[1]["texts"] != told[3]["texts"]


def test_hashes(tmp_path):
    path = manifest(tmp_path, {})
    digest = read_manifest(path)[0].digest
    assert read_manifest(manifest(tmp_path, {"sha256": digest}))[0].digest == digest
    with pytest.raises(UserError, match=f"has SHA-256 {digest}, the manifest says 00; it is ano"):
        read_manifest(manifest(tmp_path, {"sha256": "00"}))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "2.txt").write_text("cd")
    (folder / "1.jsonl").write_text('{"body": "ab"}')
    (both,) = read_manifest(manifest(tmp_path, {"path": "folder", "field": "body"}))
    assert list(both.documents()) == ["ab", "cd"]
    (folder / "2.txt").rename(folder / "3.txt")
    (renamed,) = read_manifest(manifest(tmp_path, {"path": "folder", "field": "body"}))
    assert renamed.digest != both.digest


@pytest.mark.parametrize(
    "change, why",
    [
        ({"detokenizer": "ptbb"}, "did you mean 'ptb'"),
        ({"packing": "packed"}, "packing 'packed'; allowed: document, wrap"),
        ({"split": "word"}, "split 'word'"),
        ({"bos": 1}, "bos is 1; expected bool"),
        ({"url": "x"}, "no field 'url'"),
        ({"path": "b.txt"}, "b.txt: No such file"),
        ({"name": 3}, "name is 3; expected str"),
    ],
)
def test_refusals(tmp_path, change, why):
    with pytest.raises(UserError, match=why):
        read_manifest(manifest(tmp_path, change))


@pytest.mark.parametrize(
    "text, why",
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "at least one entry"),
        ('{"datasets": []}', "at least one entry"),
        ('{"datasets": [3]}', "data set 1 is int"),
        ('{"datasets": [{"name": "x"}]}', "lacks path, detokenizer, packing, bos, eos"),
    ],
)
def test_what_is_no_manifest(tmp_path, text, why):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match=why):
        read_manifest(tmp_path / "m.json")
    with pytest.raises(UserError, match="No such file"):
        read_manifest(tmp_path / "none.json")


def test_names_and_lengths(tmp_path):
    with pytest.raises(UserError, match="x stands there twice"):
        read_manifest(manifest(tmp_path, {"name": "x"}, {"name": "x"}))
    (short,) = read_manifest(manifest(tmp_path, {}))
    with pytest.raises(UserError, match="has 17 tokens, fewer than one row of 100"):
        short.load(TOKENIZER, 100)
