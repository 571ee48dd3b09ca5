from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import build, names, section
from ldd_jax.data import Bytes, Characters, Json, SentencePiece, load_tokenizer

TEXTS = ["the cat sat on the mat", "a dog; the cat?\nit sat.", "the end of the tale"] * 20


def train_json(path, pad=False):
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>"] + (["<pad>"] if pad else []),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    path = train_json(tmp_path_factory.mktemp("json") / "bpe.json")
    configs = {
        "bytes": Bytes(),
        "characters": Characters(),
        "sentencepiece": SentencePiece(vocab_size=280),
        "bpe": SentencePiece(vocab_size=280, model_type="bpe"),
        "json": Json(path=path),
    }
    return {name: config.fit(lambda: TEXTS) for name, config in configs.items()}


KINDS = ["bytes", "characters", "sentencepiece", "bpe", "json"]


def test_registered():
    assert names("tokenizer") == ["bytes", "characters", "ids", "json", "sentencepiece"]
    for cls in (Bytes, Characters, Json, SentencePiece):
        assert build("tokenizer", section(cls)) == cls()


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_save_and_load(all_kinds, kind, tmp_path):
    tokenizer = all_kinds[kind]
    for text in TEXTS[:3]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert min(ids) >= 0 and max(ids) < tokenizer.base
        assert not {tokenizer.eos, tokenizer.pad, tokenizer.bos} & set(ids)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is type(tokenizer) and again.digest == tokenizer.digest
    for name in ("size", "bos", "eos", "pad"):
        assert getattr(again, name) == getattr(tokenizer, name)
    assert [again.encode(t) for t in TEXTS[:3]] == [tokenizer.encode(t) for t in TEXTS[:3]]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("kind", KINDS)
def test_templates_and_decoding_of_specials(all_kinds, kind):
    tokenizer = all_kinds[kind]
    ids, free = tokenizer.encode_template("the [MASK][MASK] sat[MASK]")
    assert len(ids) == len(free) and sum(free) == 3 and free[-1]
    assert all(0 <= i < tokenizer.size for i in ids)
    masked = [tokenizer.size if f else i for i, f in zip(ids, free, strict=True)]
    assert tokenizer.decode(masked) == "the [MASK][MASK] sat[MASK]"
    assert tokenizer.encode_template("the cat") == (tokenizer.encode("the cat"), [False] * len(
        tokenizer.encode("the cat")))  # fmt: skip
    a, b = tokenizer.encode("the cat"), tokenizer.encode("a dog")
    stream = [*a, tokenizer.eos, *b, tokenizer.eos, tokenizer.pad, tokenizer.pad]
    assert tokenizer.decode(stream) == "the cat\na dog\n"
    with pytest.raises(UserError, match="negative"):
        tokenizer.decode([-1])


@pytest.mark.parametrize("kind", KINDS[:2])
def test_specials_only_where_needed(kind):
    config = {"bytes": Bytes(), "characters": Characters()}[kind]
    bare = config.fit(lambda: TEXTS, needs=())
    full = config.fit(lambda: TEXTS, needs=("bos", "eos", "pad"))
    assert bare.size == bare.base and (bare.bos, bare.eos, bare.pad) == (None, None, None)
    assert [full.bos, full.eos, full.pad] == [full.base, full.base + 1, full.base + 2]
    assert full.size == full.base + 3
    with pytest.raises(ValueError, match="did you mean 'eos'"):
        config.fit(lambda: TEXTS, needs=("eoss",))


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_bytes_keep_any_text(text):
    tokenizer = Bytes().fit(list)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=40, deadline=None)
@given(text=st.text())
def test_trained_sentencepiece_keeps_any_text(all_kinds, text):
    for kind in ("sentencepiece", "bpe"):
        assert all_kinds[kind].decode(all_kinds[kind].encode(text)) == text


def test_characters_by_frequency_unknown_and_case():
    tokenizer = Characters(max_size=2).fit(lambda: ["bbbaac", "d"], needs=())
    assert tokenizer.alphabet == "ba" and tokenizer.size == 3
    assert tokenizer.encode("abcz") == [1, 0, 2, 2]
    assert tokenizer.decode([1, 0, 2]) == "ab\ufffd"
    assert Characters().fit(lambda: ["ba"], needs=()).alphabet == "ab"  # ties by code point
    lower = Characters(lowercase=True).fit(lambda: ["AbB"], needs=())
    assert lower.alphabet == "ba" and lower.decode(lower.encode("BA")) == "ba"
    with pytest.raises(UserError, match="no text"):
        Characters().fit(list)
    with pytest.raises(ValueError, match="max_size=0"):
        Characters(max_size=0)


def test_sentencepiece_is_deterministic_and_loads_from_a_file(all_kinds, tmp_path):
    again = SentencePiece(vocab_size=280).fit(lambda: TEXTS)
    assert again.model == all_kinds["sentencepiece"].model
    path = tmp_path / "own.model"
    path.write_bytes(again.model)
    loaded = SentencePiece(model=str(path)).fit(list)
    assert loaded.encode("the cat") == again.encode("the cat")


def test_sentencepiece_with_its_own_specials_and_dummy_prefix(tmp_path):
    import sentencepiece

    prefix = str(tmp_path / "m")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=prefix, vocab_size=30, hard_vocab_limit=False,
        pad_id=3, minloglevel=2)  # fmt: skip
    tokenizer = SentencePiece(model=prefix + ".model").fit(list)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (1, 2, 3)
    assert tokenizer.size == tokenizer.base
    ids, free = tokenizer.encode_template("the ca[MASK] sat")
    masked = [tokenizer.size if f else i for i, f in zip(ids, free, strict=True)]
    assert tokenizer.decode(masked) == "the ca[MASK] sat"


def test_bad_subword_files(tmp_path):
    bad = tmp_path / "bad"
    bad.write_text('{"model": 3}')
    for content in (b"", b"hello", b"\x00\x01\x02"):
        (tmp_path / "sp").write_bytes(content)
        with pytest.raises(UserError, match="is not a SentencePiece model"):
            SentencePiece(model=str(tmp_path / "sp")).fit(list)
    with pytest.raises(UserError, match="cannot read the SentencePiece model file"):
        SentencePiece(model=str(tmp_path / "none")).fit(list)
    with pytest.raises(UserError, match="could not train"):
        SentencePiece().fit(list)
    with pytest.raises(ValueError, match="did you mean 'unigram'"):
        SentencePiece(model_type="unigrm")
    with pytest.raises(ValueError, match="at least 260"):
        SentencePiece(vocab_size=100)
    with pytest.raises(UserError, match="not a tokenizers-library JSON"):
        Json(path=str(bad)).fit(list)
    with pytest.raises(UserError, match="needs path="):
        Json().fit(list)
    with pytest.raises(UserError, match="cannot read the tokenizer file"):
        Json(path=str(tmp_path / "none")).fit(list)


def test_json_special_tokens(tmp_path):
    path = train_json(tmp_path / "t.json", pad=True)
    tokenizer = Json(path=path).fit(list)
    assert tokenizer.eos == tokenizer.bos == 0 and tokenizer.pad == 1
    assert tokenizer.size == tokenizer.base  # nothing had to be appended
    bare = Json(path=train_json(tmp_path / "u.json")).fit(list)
    assert bare.pad == bare.base and bare.size == bare.base + 1
    assert Json(path=path, eos="<pad>").fit(list).eos == 1
    with pytest.raises(UserError, match="no eos token '<|endoftxt|>'.*did you mean"):
        Json(path=path, eos="<|endoftxt|>").fit(list)


def test_load_refuses_what_it_does_not_know(all_kinds, tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    all_kinds["sentencepiece"].save(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = json.loads(path.read_text())

    for fields, match in (
        ({"version": 99}, "version 99"),
        ({"kind": "bites"}, "did you mean 'bytes'"),
        ({"format": "other"}, "not written by this library"),
        ({"size": 3}, "says 3 ids"),
        ({"extra": 1}, "damaged"),
        ({"appended": ["nonsense"]}, "damaged"),
        ({"kind": "characters", "state": {"alphabet": "aa", "lowercase": False}}, "damaged"),
    ):
        path.write_text(json.dumps({**good, **fields}))
        with pytest.raises(UserError, match=match):
            load_tokenizer(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_tokenizer(tmp_path)
    path.write_text(json.dumps(good))
    model = tmp_path / "sentencepiece.model"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="not the one that was saved"):
        load_tokenizer(tmp_path)
    model.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_tokenizer(tmp_path)


def test_json_truncation_and_padding_settings_are_ignored(tmp_path):
    import tokenizers

    path = train_json(tmp_path / "t.json", pad=True)
    plain = Json(path=path).fit(list).encode(TEXTS[0])
    library = tokenizers.Tokenizer.from_file(path)
    library.enable_truncation(2)
    library.save(path)
    assert Json(path=path).fit(list).encode(TEXTS[0]) == plain
    library.no_truncation()
    library.enable_padding(length=99, pad_id=1, pad_token="<pad>")
    library.save(path)
    assert Json(path=path).fit(list).encode(TEXTS[0]) == plain
