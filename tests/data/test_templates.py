"""Text around holes, names of special tokens in it, and signs that tokenizers use themselves."""

from __future__ import annotations

import io
import json

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from ldd_jax.core.checks import UserError
from ldd_jax.data import Bytes, Characters, Json, SentencePiece
from ldd_jax.data.json_vocabulary import JsonTokenizer
from ldd_jax.data.sentencepieces import SentencePieceTokenizer

TEXT = ["the cat sat on the mat, the catalogue of cats", "a dog; the cat?"] * 20
TEMPLATES = (
    "the cat[MASK]logue of",
    "the [MASK] cat",
    "[MASK]cat",
    "[MASK] cat",
    "the[MASK][MASK] cat, [MASK]",
    "cat[MASK]  cat",
)


def metaspace(scheme):
    def build(t):
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        t.decoder = decoders.Metaspace(prepend_scheme=scheme)

    return build


def byte_level(prefix):
    def build(t):
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        t.decoder = decoders.ByteLevel()

    return build


def prepend(t):
    """Llama-2's file."""
    t.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    strip = decoders.Strip(" ", 1, 0)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), strip])


def stripped(t):
    """Metaspace behind a normaliser that strips, as in T5's file."""
    t.normalizer = normalizers.Sequence([normalizers.Strip()])
    metaspace("always")(t)


FILES = {
    "always": metaspace("always"),
    "first": metaspace("first"),
    "never": metaspace("never"),
    "prepend": prepend,
    "stripped": stripped,
    "bytes": byte_level(False),
    "bytes with prefix": byte_level(True),
}


def json_tokenizer(name):
    t = tokenizers.Tokenizer(models.BPE())
    FILES[name](t)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if name.startswith("bytes") else []
    t.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, show_progress=False, initial_alphabet=alphabet)
    )
    return JsonTokenizer(t.to_str(), {})


def sentencepiece_model(**options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=out,
        vocab_size=300,
        hard_vocab_limit=False,
        minloglevel=2,
        byte_fallback=True,
        **options,
    )
    return SentencePieceTokenizer(out.getvalue(), ("eos", "pad"))


MAKERS = {
    **{name: (lambda n=name: json_tokenizer(n)) for name in FILES},
    "dummy prefix": lambda: sentencepiece_model(),
    "no dummy prefix": lambda: sentencepiece_model(add_dummy_prefix=False),
    "extra spaces": lambda: sentencepiece_model(remove_extra_whitespaces=False),
    "own": lambda: SentencePiece(vocab_size=300).fit(lambda: TEXT),
    "byte": lambda: Bytes().fit(lambda: TEXT),
    "characters": lambda: Characters().fit(lambda: TEXT),
}


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_text_around_holes_is_kept_spaces_included(made, name):
    tokenizer = made[name]
    for text in TEMPLATES:
        ids, free = tokenizer.encode_template(text)
        assert sum(free) == text.count("[MASK]")
        masked = [tokenizer.size if f else i for i, f in zip(ids, free)]
        assert tokenizer.decode(masked) == text
        assert tokenizer.decode(masked, mask=tokenizer.size) == text
    for text in TEXT[:2]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_template("the cat")[0] == tokenizer.encode("the cat")


@pytest.mark.parametrize("name", MAKERS)
def test_what_continues_a_text_keeps_its_own_space(made, name):
    tokenizer = made[name]
    for context, text in (("the cat", " sat"), ("the cat", "alogue")):
        ids = [*tokenizer.encode(context), *tokenizer.encode(text, start=False)]
        assert tokenizer.decode(ids) == context + text


def named(marked):
    """A byte-level tokenizer with an end-of-text token, marked as special in its file or not."""
    t = tokenizers.Tokenizer(models.BPE())
    byte_level(False)(t)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=["<|endoftext|>", "[MASK]", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    t.train_from_iterator(TEXT, trainer)
    document = json.loads(t.to_str())
    for token in document["added_tokens"]:
        token["special"] = marked
    return Json(path="x").of(json.dumps(document), ("eos", "pad"))


@pytest.mark.parametrize("marked", [True, False])
def test_names_of_special_tokens_are_ordinary_text(marked):
    tokenizer = named(marked)
    text = "a text\0 ends with <|endoftext|> or <|endoftext|><pad>."
    ids = tokenizer.encode(text)
    assert not {tokenizer.eos, tokenizer.pad} & set(ids) and tokenizer.decode(ids) == text
    ids, free = tokenizer.encode_template("a <|endoftext|>[MASK]<pad>")
    known = {i for i, f in zip(ids, free) if not f}
    assert not {tokenizer.eos, tokenizer.pad} & known and sum(free) == 1
    if marked:  # and the file's own mask is no mask in a text
        ids = tokenizer.encode("it hides with [MASK].")
        assert tokenizer.decode(ids, mask=None) == "it hides with [MASK]."
        assert tokenizer._tokenizer.token_to_id("[MASK]") not in ids


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_the_sign_for_a_space_survives(model_type):
    tokenizer = SentencePiece(vocab_size=300, model_type=model_type).fit(lambda: TEXT)
    for text in ("x\u2581y", "\u2581", "\u2581\u2581 \u2581", "the \u2581cat", " a\u2581"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        ids, free = tokenizer.encode_template(text + "[MASK]" + text)
        assert tokenizer.decode([tokenizer.size if f else i for i, f in zip(ids, free)]) == (
            text + "[MASK]" + text
        )


@pytest.mark.parametrize("name", MAKERS)
def test_an_id_past_the_tokenizer_is_no_mask(made, name):
    """A process may have more states than the tokenizer has ids, and its mask anywhere."""
    tokenizer = made[name]
    ids, size = tokenizer.encode("the cat"), tokenizer.size
    assert tokenizer.decode([*ids, size, size + 3], mask=size + 3) == "the cat\ufffd[MASK]"
    assert tokenizer.decode([*ids, size], mask=None) == "the cat\ufffd"


@pytest.mark.parametrize("name", ["always", "own", "byte", "characters"])
def test_text_in_another_encoding_is_refused_in_words(made, name):
    for encode in (made[name].encode, made[name].encode_template):
        for text in ("caf\udce9", "caf\udce9[MASK]"):
            with pytest.raises(UserError, match="not UTF-8"):
                encode(text)
