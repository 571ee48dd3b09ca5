"""Continuations: settings in everybody's words; the prompt is kept, the continuation shortened."""

from __future__ import annotations

import types

import numpy as np
import pytest

import ldd_jax
from ldd_jax.core.checks import UserError
from ldd_jax.interop.continuing import Continuer, asked, share

GREEDY = {"top_k": 1}
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


@pytest.mark.parametrize(
    "settings, readout",
    [
        ({}, GREEDY),
        ({"temperature": None}, GREEDY),
        ({"temperature": 0}, GREEDY),
        ({"do_sample": True, "temperature": 0}, GREEDY),
        ({"do_sample": True, "temperature": 0.0, "top_p": 0.5}, GREEDY),
        ({"do_sample": False, "temperature": 0.7}, GREEDY),
        ({"do_sample": True}, PLAIN),
        ({"do_sample": True, "temperature": None, "top_p": None}, PLAIN),
        ({"temperature": 0.7}, PLAIN | {"temperature": 0.7}),
        ({"temperature": 1, "top_p": 0.9, "top_k": 5}, PLAIN | {"top_p": 0.9, "top_k": 5}),
        ({"do_sample": True, "top_k": -1}, PLAIN),
    ],
)
def test_readout(settings, readout):
    assert dict(asked(settings).readout) == readout


@pytest.mark.parametrize(
    "settings, most",
    [
        ({}, 256),
        ({"max_gen_toks": 7}, 7),
        ({"max_new_tokens": 8}, 8),
        ({"max_tokens": "9"}, 9),
        ({"max_completion_tokens": 10}, 10),
        ({"max_gen_toks": None, "max_new_tokens": 8}, 8),
        ({"max_gen_toks": 7, "max_new_tokens": 8}, 7),
    ],
)
def test_length(settings, most):
    assert asked(settings).most == most


def test_until():
    assert asked({"until": "a"}).until == ("a",) and asked({"until": None}).until == ()
    assert asked({"until": ["a", "b"]}).until == ("a", "b")


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"temperature": "warm"}, "temperature is 'warm'"),
        ({"temperature": -1}, "0 (greedy) or more"),
        ({"max_tokens": 0}, "1 or more"),
        ({"top_p": [1]}, "top_p is [1]"),
    ],
)
def test_refused(settings, text):
    with pytest.raises(UserError) as error:
        asked(settings | {"do_sample": True})
    assert text in str(error.value)


@pytest.mark.parametrize(
    "prompt, most, kept, count",
    [
        (0, 4, 0, 4),
        (5, 256, 5, 11),
        (12, 4, 12, 4),
        (15, 256, 15, 1),
        (16, 256, 8, 8),
        (99, 3, 13, 3),
    ],
)
def test_shares_of_a_row(prompt, most, kept, count):
    assert share(prompt, most, 16) == (kept, count)


def spied(pipeline, **options):
    """A continuer whose sampler writes ws, and what it was given."""
    continuer, seen = Continuer(pipeline, **options), []
    (w,) = pipeline.tokenizer.encode("w")

    def batch(params, seed, index, tokens, fixed, steps):
        seen.append((index.copy(), tokens.copy(), fixed.copy(), steps))
        z, rows = np.where(fixed, tokens, w), len(tokens)
        none = np.zeros(rows, bool)
        return types.SimpleNamespace(z=z, calls=np.ones(rows, int), lawless=none), None

    sampling = types.SimpleNamespace(batch_size=options.get("batch_size", 64))
    fake = types.SimpleNamespace(sampling=sampling, batch=batch)
    continuer._sampler = lambda readout: fake
    return continuer, seen


@pytest.mark.slow
def test_the_prompt_is_kept(trained):
    pipeline = ldd_jax.load(trained("lddm_m"))
    continuer, seen = spied(pipeline, batch_size=2)
    prompts = ["the old house", "a red bank", "the old house by the river"]
    asks = [(p, {"max_gen_toks": 256}) for p in prompts]
    texts = continuer([*asks, ("we", {"max_gen_toks": 3, "num_beams": 4})])
    assert texts == ["www", "wwwwww", "wwwwwwww", "www"]
    assert (continuer.cut, continuer.shortened, continuer.ignored) == (1, 3, {"num_beams"})
    batches = (zip(*arrays) for *arrays, _ in seen)
    rows = {int(n): t[f].tolist() for b in batches for n, t, f in b if not f.all()}
    encode = pipeline.tokenizer.encode
    assert rows[0] == encode(prompts[0]) and rows[1] == encode(prompts[1])
    assert rows[2] == encode(prompts[2])[-8:] and rows[3] == encode("we")
    assert sorted(steps for *_, steps in seen) == [3, 4, 8]  # a power of two, or what is asked


@pytest.mark.slow
def test_texts_depend_on_number_and_prompt_alone(trained):
    pipeline = ldd_jax.load(trained("lddm_m"))
    settings = {"do_sample": True, "max_new_tokens": 6}
    asks = [("the ", settings), ("a red ", settings), ("by ", settings), ("the ", settings)]
    texts = [Continuer(pipeline, batch_size=n)(asks) for n in (2, 3)]
    assert texts[0] == texts[1] and texts[0][0] != texts[0][3]
    narrow = [(p, settings | {"top_k": 1}) for p, _ in asks]
    greedy = [(p, {"do_sample": True, "temperature": 0, "max_tokens": 6}) for p, _ in asks]
    assert Continuer(pipeline)(narrow) == Continuer(pipeline)(greedy)
