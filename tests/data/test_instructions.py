"""Rows of prompts and responses: what is kept, what is learned, what is left out."""

import json

import numpy as np
import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data import Characters, InstructionData

PAIRS = [("ab", "cd"), ("a", "bcd"), ("abc", "d"), ("dab", ""), ("ca", "abcdabcdabcd")]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": p, "response": r, "other": 1} for p, r in PAIRS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def load(path, **fields):
    held = fields.pop("validation_path", path)
    given = dict(length=9, template="Q{prompt}A", tokenizer=Characters(), validation_path=held)
    return InstructionData(path=path, **given | fields).load()


@pytest.mark.parametrize("pad", ["eos_in_loss", "ignore"])
def test_the_prompt_is_kept_and_the_response_learned(path, pad):
    corpus = load(path, pad=pad)
    encode, eos = corpus.tokenizer.encode, corpus.tokenizer.eos
    assert len(corpus.train) == 4 and corpus.note.endswith(
        "2 pairs too long for a row are left out"
    )
    scored = np.zeros(corpus.tokenizer.size, int)
    for i, (prompt, response) in enumerate(PAIRS[:4]):
        head, answer = encode(f"Q{prompt}A"), [*encode(response), eos]
        row, end = corpus.train[i], len(head) + len(answer)
        assert row["tokens"][:end].tolist() == [*head, *answer]
        learned = np.arange(9) >= len(head)
        if pad == "eos_in_loss":
            assert (row["tokens"][end:] == eos).all() and "segment" not in row
        else:
            learned &= np.arange(9) < end
            assert (row["segment"] == (np.arange(9) < end)).all()
        assert (row["keep"] == ~learned).all() and (row["weight"] == learned).all()
        scored += np.bincount(row["tokens"][learned], minlength=len(scored))
    assert (corpus.train.counts == scored).all()


def test_equal_prompts_lie_on_one_side(tmp_path):
    file = tmp_path / "many.jsonl"
    rows = [{"prompt": "abcd"[i % 4] * (i % 7 + 1), "response": "abcd"[i % 3]} for i in range(400)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = load(str(file), length=12, validation_path="", validation_fraction=0.3)
    prompts = lambda rows: {
        tuple(r["tokens"][r["keep"]]) for r in (rows[i] for i in range(len(rows)))
    }
    train, held = prompts(corpus.train), prompts(corpus.validation)
    assert train and held and not train & held
    assert len(corpus.train) + len(corpus.validation) == 400


def test_refusals(path, tmp_path):
    with pytest.raises(UserError, match="'QcaA' and its response have 17 tokens, but a row has 9"):
        load(path, long="refuse")
    with pytest.raises(UserError, match="no pair for a row of length=3.*longest has 17 tokens"):
        load(path, length=3)
    for template in ("no place", "{prompt}{prompt}", "{% for m in messages %}"):
        with pytest.raises(ValueError, match="must hold {prompt} once"):
            load(path, template=template)
    with pytest.raises(ValueError, match="a row of its own"):
        load(path, mode="packed")
    with pytest.raises(UserError, match="field 'prompt'"):
        bad = tmp_path / "bad.jsonl"
        bad.write_text('{"question": "a", "response": "b"}\n')
        load(str(bad))
