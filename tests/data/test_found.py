"""Tokenizers of other libraries, recognised by what a folder holds; and ids as they are."""

import json

import pytest
import tokenizers

from ldd_jax.core.checks import UserError
from ldd_jax.core.types import TokenSpace
from ldd_jax.data import IdTokenizer, find_tokenizer, load_tokenizer
from ldd_jax.processes import LeftToRight, Masked, Uniform, token_space

TEXT = ["the old house by the river", "a small red house", "the old river bank"] * 5


def gpt2(folder):
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(TEXT, vocab_size=300, special_tokens=["<|endoftext|>"])
    made.save_model(str(folder))
    return made


def test_gpt2_vocabulary_and_merges(tmp_path):
    made = gpt2(tmp_path)
    for path in (tmp_path, tmp_path / "vocab.json", tmp_path / "merges.txt"):
        found = find_tokenizer(path)
        assert found.size == made.get_vocab_size() and found.pad is None
        assert found.eos == found.bos == made.token_to_id("<|endoftext|>")
        for text in ("the old house", " by the\nriver", "ünknown x"):
            assert found.encode(text) == made.encode(text).ids
            assert found.eos not in found.encode(f"{text} <|endoftext|>")  # ordinary text
            assert found.decode(found.encode("the old house")) == "the old house"
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match="merges.txt is missing"):
        find_tokenizer(tmp_path)


def test_tokenizer_json(tmp_path):
    made = gpt2(tmp_path)
    for name in ("tokenizer.json", "other.json"):
        made.save(str(tmp_path / name))
        found = find_tokenizer(tmp_path / name)
        assert found.encode("the old house") == made.encode("the old house").ids
    assert find_tokenizer(tmp_path).kind == "json"


def test_bert_has_its_own_mask(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "house", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    found = find_tokenizer(tmp_path)
    assert found.encode("The houses") == [5, 6, 7] and found.id_of("[MASK]") == 4
    assert 4 not in found.encode("[MASK]")  # ordinary text, unknown to these words
    assert (found.bos, found.eos, found.pad) == (2, 3, 0)


def test_a_saved_one(tmp_path):
    IdTokenizer(9).save(tmp_path)
    assert find_tokenizer(tmp_path).digest == IdTokenizer(9).digest


def test_nothing_there(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="no tokenizer"):
            find_tokenizer(path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError):
        find_tokenizer(tmp_path)


def test_ids(tmp_path):
    ids = IdTokenizer(12)
    assert ids.encode(" 3 11\n0 ") == [3, 11, 0] and ids.decode([3, 11, 0]) == "3 11 0"
    assert ids.encode_template("3 [MASK][MASK] 4") == ([3, 0, 0, 4], [False, True, True, False])
    assert ids.decode([3, 12, 12, 4]) == "3[MASK][MASK] 4"
    for text in ("house", "12", "-1"):
        with pytest.raises(UserError):
            ids.encode(text)
    ids.save(tmp_path)
    assert load_tokenizer(tmp_path).size == 12


def test_states_of_networks_made_elsewhere():
    usual = [token_space(kind(), 9) for kind in (Masked, Uniform, LeftToRight)]
    space = lambda **fields: TokenSpace(vocabulary=9, **fields)
    assert usual == [space(size=10, mask=9), space(size=9), space(size=10, mask=9)]
    assert token_space(Masked(states=9, mask=4), 9) == space(size=9, mask=4)
    assert token_space(Uniform(states=12), 9) == space(size=12)
    for process in (Masked(states=9), Masked(mask=12), Uniform(mask=3), Uniform(states=8)):
        with pytest.raises(UserError):
            token_space(process, 9)
