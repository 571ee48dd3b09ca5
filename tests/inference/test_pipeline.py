"""The Python interface: what the commands do, and likelihoods that depend on no batch."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest
from absl import logging

import ldd_jax
from ldd_jax.core.checks import UserError
from ldd_jax.core.types import TokenSpace
from ldd_jax.data import Json
from ldd_jax.inference import pipeline, scorer
from ldd_jax.inference.scorer import Item, Scorer
from tests.cli import tools


@pytest.fixture(scope="module")
def pipe(trained):
    return ldd_jax.load(trained("lddm_m"))


@pytest.mark.slow
def test_samples_are_those_of_the_command(pipe, trained, tmp_path):
    out = tmp_path / "s.jsonl"
    flags = ("--num_samples=3", "--steps=3", "--seed=5", "--temperature=0.8", "--latent=off")
    tools.good("sample", f"--workdir={trained('lddm_m')}", f"--output={out}", *flags)
    texts = pipe.sample(3, num_inference_steps=3, seed=5, temperature=0.8, latent="off")
    assert texts == [r["text"] for r in tools.json_lines(out)]


@pytest.mark.slow
def test_fill(pipe):
    assert all(t.startswith("the ") for t in pipe.fill("the [MASK][MASK][MASK]", 2, seed=1))
    assert len(pipe.fill("the [MASK][MASK]")) == 1


@pytest.mark.parametrize("options", [{"sampler": "nope"}, {"latent": "of"}, {"temprature": 2}])
def test_wrong_options(pipe, options):
    with pytest.raises(UserError):
        pipe.sample(1, **options)
    with pytest.raises(UserError, match="longer than a row"):
        pipe.nll("house " * 20)


def test_loading_warns_of_nothing(trained, caplog, capfd):
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)  # as in a program that has not touched it
    try:
        with warnings.catch_warnings(record=True) as caught:
            ldd_jax.load(trained("lddm_m"))
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.set_verbosity(verbosity)
    assert [r for r in caplog.records if r.name == "absl"] == []
    assert [w for w in caught if w.category is UserWarning] == [] and capfd.readouterr().err == ""


def calls():
    """(words of the refusal, call) of values that are no numbers, texts or known options."""
    return [
        ("num_samples is 1.5 (float); expected a whole number", lambda m: m.sample(1.5)),
        ("num_samples is '4' (str); expected a whole number", lambda m: m.sample("4")),
        ("num_samples is True (bool)", lambda m: m.sample(True)),
        ("steps is 'x' (str)", lambda m: m.sample(1, steps="x")),
        ("steps and num_inference_steps", lambda m: m.sample(steps=1, num_inference_steps=1)),
        ("temperature is 'a' (str); expected a number", lambda m: m.sample(temperature="a")),
        ("temperature is nan", lambda m: m.sample(temperature=float("nan"))),
        ("seed is 'x' (str)", lambda m: m.sample(seed="x")),
        ("seed is 1.5 (float)", lambda m: m.sample(seed=1.5)),
        ("sampler is 3 (int); expected a string", lambda m: m.sample(sampler=3)),
        ("latent is False (bool)", lambda m: m.sample(latent=False)),
        ("reset_on_remask is 1 (int)", lambda m: m.sample(reset_on_remask=1)),
        ("fill is None (NoneType)", lambda m: m.fill(None)),
        ("fill is empty", lambda m: m.fill("")),
        ("prompt is empty", lambda m: m.sample(prompt="")),
        ("a text is 5 (int)", lambda m: m.nll([5])),
        ("draws is 'x' (str)", lambda m: m.nll("the", draws="x")),
        ("seed is 'x' (str)", lambda m: m.nll("the", seed="x")),
        ("context is None", lambda m: m.nll("the", context=None)),
        ("workdir is 5", lambda m: ldd_jax.load(5)),
        ("step is 'x' (str)", lambda m: ldd_jax.load("nowhere", step="x")),
    ]


@pytest.mark.parametrize("words, call", calls())
def test_a_value_of_another_type_is_refused_in_words(pipe, words, call):
    with pytest.raises(UserError) as caught:
        call(pipe)
    assert words in str(caught.value)


def test_options_are_the_names_of_the_flags(pipe):
    with pytest.raises(UserError) as caught:
        pipe.sample(1, temprature=2)
    allowed = str(caught.value)
    assert "did you mean 'temperature'" in allowed and "sampler" in allowed
    for internal in ("readout", "num_steps", "step,", "tile"):
        assert internal not in allowed
    one, two, three = (
        pipe.sample(2, seed=1, **steps)
        for steps in ({"steps": 3}, {"num_inference_steps": np.int64(3)}, {"steps": 2})
    )
    assert one == two != three


@pytest.mark.slow
def test_temperature_0_is_greedy(pipe):
    how = dict(seed=3, sampler="confidence")
    assert pipe.sample(1, temperature=0, **how) == pipe.sample(1, top_k=1, **how)


@pytest.mark.slow
def test_programs_are_kept(pipe, compiled):
    """A second call compiles nothing; other seeds, steps, texts and few more rows neither."""
    pipe.sample(3, steps=4, sampler="euler")
    pipe.fill("the [MASK] house", 2)
    pipe.nll("the old", draws=4)
    first = compiled()
    assert first["jit(sampler)"] >= 2
    for count, steps, seed in ((3, 4, 0), (3, 9, 7), (4, 2, 1)):
        assert len(pipe.sample(count, steps=steps, seed=seed, sampler="euler")) == count
    pipe.fill("old [MASK] stand", 2)
    pipe.nll("a red", draws=4, seed=3)
    assert compiled() == first
    assert pipe.sample(5, seed=2)[:3] == pipe.sample(3, seed=2)  # whatever the program's rows


@pytest.mark.slow
def test_another_seed_of_a_bound_compiles_nothing(trained, compiled):
    model = pipeline.load(trained("udlm"))
    one = model.nll("the old", draws=4, seed=1)
    first = compiled()
    two = model.nll("the old", draws=4, seed=2)
    assert compiled() == first and one[0].nats != two[0].nats
    fresh = Scorer(model.experiment, model.params, draws=4, seed=1)
    assert fresh([scorer.item(model.tokenizer, "", "the old")])[0] == one


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lddm_m", "udlm", "ar"])
def test_scores_depend_on_no_batch(trained, method):
    pipe = pipeline.load(trained(method))
    score = Scorer(pipe.experiment, pipe.params, draws=6, batch_size=8)
    items = [
        scorer.item(pipe.tokenizer, context, text)
        for context, text in (("the old ", "house"), ("", "river bank"), ("a red house", " day"))
    ]
    together, cut = score(items)
    one_by_one = [score([item])[0][0] for item in reversed(items)][::-1]
    for a, b in zip(together, one_by_one):
        assert a == b
    assert cut == (0, 0) and all(np.isfinite(s.nats) for s in together)
    assert all(s.exact for s in together) == (method == "ar")
    assert [s.tokens for s in together] == [6, 10, 4]  # the space before goes with the target


def test_long_items_lose_their_beginning(pipe):
    score = Scorer(pipe.experiment, pipe.params, draws=4)
    length = score.length
    ids = tuple(pipe.tokenizer.encode(("the old house " * 3)[: length + 5]))
    scores, cut = score([Item(ids, 2), Item(ids, length + 3), Item(ids[-length:], 2)])
    assert cut == (2, 1)
    assert scores[0] == scores[2] and scores[1].tokens == length


def test_a_target_without_tokens_is_refused(pipe):
    """It scored 0 nats, the best score there is."""
    for refused in (lambda: pipe.nll(""), lambda: pipe.nll(["a", ""], context="the old")):
        with pytest.raises(UserError, match="has no tokens"):
            refused()
    with pytest.raises(UserError, match="without tokens"):
        Scorer(pipe.experiment, pipe.params, draws=4)([Item((1, 2), 0)])


def test_a_text_in_another_script_is_refused_and_a_little_of_it_warned_of(pipe, capsys):
    """All its characters are one symbol, which is easy to predict."""
    with pytest.raises(UserError, match="unknown to the characters tokenizer.*tokenizer=bytes"):
        pipe.nll("\u4e00\u4e8c\u4e09")
    with pytest.raises(UserError, match="unknown to the characters tokenizer"):
        pipe.sample(1, prompt="\u4e00\u4e8c")
    (score,) = pipe.nll("the river b\u4e00", draws=2)
    assert score.unknown == 1 / 12 and "warning: 8.3%" in capsys.readouterr().err
    (score,) = pipe.nll("the river", draws=2)
    assert score.unknown == 0 and "warning" not in capsys.readouterr().err


def test_a_token_that_spans_context_and_target_leaves_the_target_whole(tmp_path):
    from tests.data.test_tokenizers import train_json

    tokenizer = Json(path=train_json(tmp_path / "bpe.json")).fit(lambda: (), needs=())
    assert len(tokenizer.encode("the mat")) < len(tokenizer.encode("the ma")) + 1
    for context, text in (("the ma", "t"), ("the ma", "t sat"), ("the", " mat"), ("", "mat")):
        item = scorer.item(tokenizer, context, text)
        assert 0 < item.target < len(item.tokens) + (context == "")
        assert tokenizer.decode(item.tokens[-item.target :]) == text
        assert tokenizer.decode(item.tokens) == context + text


def test_scoring_walks_the_vocabulary_in_tiles(pipe):
    """No [B, L, V] array of logits, whatever the run's own tile."""
    wide = 50_257
    space = TokenSpace(size=wide + 1, mask=wide)
    model = dataclasses.replace(pipe.experiment.model, tokens=space)
    experiment = dataclasses.replace(pipe.experiment, model=model, tokens=space)
    tiled = Scorer(experiment, jax.eval_shape(model.init, jax.random.key(0)), batch_size=64)
    shape = jax.ShapeDtypeStruct
    ids, where = shape((64, 64), "int32"), shape((64, 64), "bool")
    row = shape((64,), "int32")
    seed = shape((), "int32")
    lowered = tiled.run.lower(tiled.params, seed, row, ids, where, ids, row)
    used = lowered.compile().memory_analysis().temp_size_in_bytes
    assert used < 64 * 64 * wide, used  # a quarter of the logits in float32


def test_two_passes_change_the_score(pipe):
    one, two, default = (pipe.nll("the old house", num_passes=k, draws=4)[0] for k in (1, 2, None))
    assert one.nats != two.nats
    assert pipe.experiment.evaluation.passes == 2 and default == two  # as `evaluate`
    assert (one.passes, two.passes) == (1, 2)
    with pytest.raises(UserError, match="has one pass"):
        plain = dataclasses.replace(pipe.experiment.model, latent=False)
        Scorer(dataclasses.replace(pipe.experiment, model=plain), pipe.params, passes=2)


@pytest.mark.slow
def test_the_examples_of_the_page_run(trained, monkeypatch, tmp_path):
    from tests.test_docs import blocks

    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(trained("lddm_m"))
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for block in blocks("api.md"):
        block = block.replace("return [MASK][MASK][MASK] value", "[MASK][MASK] value")
        exec(compile(block, "api.md", "exec"), space)  # the docs' own code
    assert len(space["texts"]) == 4 and space["best"] in space["scores"]
    assert space["logits"].shape[:2] == space["tokens"].shape
