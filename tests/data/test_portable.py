"""Vocabularies of bytes and characters as files of the `tokenizers` library."""

import random

import pytest
from tokenizers import pre_tokenizers

from ldd_jax.data import find_tokenizer, portable
from ldd_jax.data.characters import ByteTokenizer, CharacterTokenizer

TEXTS = (
    "the list",
    "  two spaces,\n\n\ttabs and \r returns ",
    "grüße, naïve — “quoted” Ω Ж 漢字 🙂 \u200b\ufffd",
    "<eos> and <pad> are words here",
    "".join(random.Random(0).choices([chr(i) for i in range(1, 0x2FF)], k=3000)),
    "",
)
LETTERS = "etaoin shrdlu\n\u200b漢.,<>p"
KINDS = {
    "bytes": ByteTokenizer(("eos", "pad")),
    "bare": ByteTokenizer(),
    "characters": CharacterTokenizer(LETTERS, needs=("bos", "eos")),
    "folded": CharacterTokenizer(LETTERS, lowercase=True, needs=("pad",)),
    "with the sign of the unknown": CharacterTokenizer("ab\ufffd"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_ids(kind, tmp_path):
    own = KINDS[kind]
    for name, data in own.shared().items():
        (tmp_path / name).write_bytes(data)
    other = find_tokenizer(tmp_path)
    assert other.kind == "json" and other.size == own.size
    assert (other.bos, other.eos, other.pad) == (own.bos, own.eos, own.pad)
    assert other.unknown == own.unknown
    for text in TEXTS:
        ids = own.encode(text)
        assert other.encode(text) == ids
        assert other.encode(text, start=False) == ids
        if own.unknown not in ids:
            assert other.decode(ids) == own.decode(ids)
    assert other.encode_batch(TEXTS) == [own.encode(text) for text in TEXTS]


def test_the_signs_of_bytes_are_the_librarys():
    signs = portable.byte_signs()
    assert sorted(signs) == sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("a \n\t", "üß漢🙂"):
        found = "".join(piece for piece, _ in split.pre_tokenize_str(text))
        assert found == "".join(signs[b] for b in text.encode())
