"""Every shipped config, with every method: trained two steps and sampled at tiny size."""

from __future__ import annotations

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import pytest
import tokenizers

from ldd_jax.cli.main import COMMANDS, parse
from ldd_jax.config import experiment as experiments
from ldd_jax.config import stored, tuned
from ldd_jax.core.checks import UserError
from ldd_jax.data.characters import CharacterTokenizer
from ldd_jax.tasks import Countdown
from ldd_jax.training.optimizers import Muon
from tests.cli import tools

# Both begin with a run: tests/runs/test_warm_start.py, tests/interop/test_pretrained.py.
FILES = sorted({p.stem for p in (tools.ROOT / "configs").glob("*.py")} - {"finetune", "adapt"})
PROBLEMS = {"countdown": 18, "game24": 64, "sudoku": 34}  # tokens of a row
# Read no plain text; trained and sampled in tests of their own.
BASELINES = ("sedd", "sedd_uniform", "lddm_sedd", "d3pm")  # on one file; a method is one section
OWN_DATA = (
    "labelled",
    "instructions",
    "ising",
    "potts",
    "rdlm",
    "scud",
    "joint",
    "patches",
    "latent_diffusion",
    "block",
    *PROBLEMS,
)  # or methods of their own
ALL = ("ar", "mdlm", "lddm_m", "mgdm", "lddm_g", "lddm_u")
RELATIVES = (
    "lddm_unrolled",
    "lddm_u_unrolled",
    "lddm_rollout",
    "lddm_u_rollout",
    "relay",
    "soft_masking",
    "rcd",
    "self_conditioning",
    "self_conditioning_u",
    "looped",
)
STEPS = ("--config.training.num_steps=2", "--config.training.log_every=1")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A tokenizers-library JSON file with the special tokens of GPT-2 and BERT."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<|endoftext|>", "[PAD]", "[CLS]", "[SEP]"]
    )
    tokenizer.train_from_iterator(tools.sentences(200).splitlines(), trainer)
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


# Files of plain text with one method each; `text` runs with all, and every pair is traced.
RUN = {"lm1b": "mdlm", "openwebtext": "lddm_m", "quickstart": "lddm_u", "text8": "udlm"}
PLAIN = [f for f in FILES if f not in OWN_DATA]


def cases():
    assert {*RUN, "text"} == set(PLAIN)
    pairs = [*RUN.items(), *(("text", method) for method in (*tools.METHODS, *BASELINES))]
    for file, method in pairs:
        yield pytest.param(file, method, "", id=f"{file}-{method}")
    for file, extra in (("text", "tokenizer=sentencepiece"), ("lm1b", "pack=packed")):
        yield pytest.param(file, "mdlm", extra, id=f"{file}-{extra}")


@pytest.mark.slow
@pytest.mark.parametrize(("file", "method", "extra"), cases())
def test_train_and_sample(file, method, extra, text, vocabulary, tmp_path):
    config = tools.recipe(f"{method},{extra}".rstrip(","), file)
    flags = [*tools.corpus(text), *tools.SIZES, *STEPS]
    if file in ("lm1b", "openwebtext"):
        flags += [f"--config.data.tokenizer.path={vocabulary}"]
    if file in ("quickstart", "text"):
        flags += [*tools.OPTIM]
    if extra.endswith("sentencepiece"):
        flags += ["--config.data.tokenizer.vocab_size=300"]
    workdir = f"--workdir={tmp_path / 'run'}"
    tools.good("train", config, workdir, *flags)
    lines = tools.json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in lines if "train_loss" in r] == [1, 2]
    assert all(r["train_loss"] > 0 for r in lines if "train_loss" in r)
    tools.good("sample", workdir)
    records = tools.json_lines(tmp_path / "run" / "samples.jsonl")
    found = json.loads((tmp_path / "run" / "config.json").read_text())["process"]["name"]
    calls = [r["calls"] for r in records]
    # Masked diffusion leaves no mask; what ends short of t = 0 may, and the noise removal takes it.
    allowed = {5} if "uniform" in found else {4} if found == "masked" else {4, 5}
    assert len(calls) == 3 and set(calls) <= allowed
    assert not any("[MASK]" in r["text"] for r in records)


def test_tokenizers_of_a_file_are_named_in_the_argument(vocabulary):
    argument = f"mdlm,tokenizer=json,tokenizer_path={vocabulary}"
    found = configs("text").get_config(f"method={argument}")
    assert found.data.tokenizer.name == "json" and found.data.tokenizer.path == str(vocabulary)
    assert found.recipe == "method=mdlm,size=tiny,tokenizer=json"
    plain = configs("text").get_config("method=mdlm")
    assert plain.recipe == "method=mdlm,size=tiny,tokenizer=characters"
    model = configs("labelled").get_config("tokenizer=sentencepiece,tokenizer_path=a.model")
    assert model.data.tokenizer.model == "a.model"
    with pytest.raises(UserError, match="read from no file; tokenizer= one of sentencepiece, json"):
        configs("text").get_config("tokenizer=bytes,tokenizer_path=x")


def configs(name):
    spec = importlib.util.spec_from_file_location(name, tools.ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def traced(argv, tokenizer):
    """One update of a config, abstractly: shapes go in, shapes come out."""
    built = experiments.build(parse("train", COMMANDS["train"], argv).config, tokenizer)
    batch, length = built.training.batch_size, built.config.data.length
    rows = lambda dtype, *more: jax.ShapeDtypeStruct((batch, *more), dtype)
    example = {
        "z0": rows(jnp.int32, length),
        "keep": rows(bool, length),
        "weight": rows(jnp.float32, length),
        "index": rows(jnp.int32),
    }
    state = built.abstract()
    found, metrics = jax.eval_shape(built.update, state, example, built.key(0))
    assert jax.tree.map(jnp.shape, found.params) == jax.tree.map(jnp.shape, state.params)
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("method", tools.METHODS)
@pytest.mark.parametrize("file", PLAIN)
def test_every_file_is_traced_with_every_method(file, method):
    traced((tools.recipe(method, file), *tools.SIZES), CharacterTokenizer("abcdefgh"))


@pytest.mark.slow
@pytest.mark.parametrize("method", RELATIVES)
def test_relatives_are_traced(method):
    traced((tools.recipe(method), *tools.SIZES), CharacterTokenizer("abcdefgh"))


def test_relatives_are_of_the_networks_that_they_know():
    with pytest.raises(UserError, match="sets loops, which network llama does not have"):
        configs("quickstart").get_config("method=looped,network=llama")
    config = configs("quickstart").get_config("method=rcd,network=llama")
    assert (config.model.carry.name, config.model.carry_at) == ("entropy_mix", "masked")
    config = configs("quickstart").get_config("method=soft_masking")
    assert (config.model.carry.name, config.model.carry.top_k) == ("soft_mask", 3)
    assert (config.model.carry_at, config.objective.context.p) == ("masked", 0.8)


def test_adaptation_takes_what_the_method_carries(tmp_path):
    stored.save_config(configs("quickstart").get_config("method=ar,network=llama"), tmp_path)
    relay = tuned.adapt(str(tmp_path), "relay")
    assert (relay.model.carry.name, relay.model.carry_at) == ("hidden", "masked")
    assert relay.objective.context.name == "rollout" and relay.objective.anneal_steps == 500
    assert tuned.adapt(str(tmp_path), "soft_masking").model.carry.name == "soft_mask"
    plain = tuned.adapt(str(tmp_path))
    assert not plain.model.latent and plain.optim.lr == 5e-3  # that of the first run
    assert tuned.adapt(str(tmp_path), optim="muon").optim.lr == 5e-3 * Muon.pace
    for other in ("lddm_u", "lddm_g", "block", "looped"):
        with pytest.raises(UserError, match=f"method '{other}'"):
            tuned.adapt(str(tmp_path), other)


def test_fine_tuning_takes_what_the_method_carries(tmp_path):
    """From a run that is older than the field, and back."""
    config = configs("text").get_config("method=mdlm")
    with config.unlocked():
        del config.model["carry"], config.model["carry_at"]
    stored.save_config(config, tmp_path)
    soft = tuned.fine_tune(str(tmp_path), "soft_masking")
    assert (soft.model.carry.name, soft.model.carry_at) == ("soft_mask", "masked")
    assert soft.model.latent and soft.objective.context.name == "pseudo"
    (tmp_path / "next").mkdir()
    stored.save_config(soft, tmp_path / "next")
    back = tuned.fine_tune(str(tmp_path / "next"), "lddm_m")
    assert (back.model.carry.name, back.model.carry_at) == ("hidden", "all")


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("file", PROBLEMS)
def test_every_problem_is_traced_with_every_method(file, method):
    traced((tools.recipe(method, file), *tools.SIZES), CharacterTokenizer("0123456789,;+-*/="))


# Countdown with all methods, the others with those that their rows are made for.
SOLVED = [
    *(("countdown", method) for method in ALL),
    *((file, method) for file in ("game24", "sudoku") for method in ("ar", "lddm_g")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "method"), SOLVED)
def test_train_on_problems(file, method, tmp_path):
    data = dict(length=PROBLEMS[file], train_count=32, validation_count=8)
    flags = [f"--config.data.{k}={v}" for k, v in data.items()]
    workdir = f"--workdir={tmp_path / 'run'}"
    run = tools.good("train", tools.recipe(method, file), workdir, *tools.SIZES, *flags, *STEPS)
    assert "32 documents" in run.out
    tools.good("sample", workdir)
    records = tools.json_lines(tmp_path / "run" / "samples.jsonl")
    calls = {"ar": PROBLEMS[file], "lddm_u": 5}.get(method, 4)
    assert [r["calls"] for r in records] == [calls] * 3


@pytest.mark.parametrize("numbers, length", [("3", 37), ("4", 64), ("5", 74)])
def test_published_rows_hold_every_countdown_problem(numbers, length):
    """Up to the largest result that the published length has room for."""
    argv = [tools.recipe(f"lddm_g,size=6m,numbers={numbers}", "countdown")]
    config = parse("train", COMMANDS["train"], argv).config
    assert (config.data.length, config.data.task.numbers) == (length, int(numbers))
    rows = Countdown(numbers=int(numbers)).problems("train", 300, 0)
    assert max(len(p) + len(s) + 2 for p, s in rows) <= length


def test_unknown_numbers_are_refused(tmp_path):
    argv = (tools.recipe("mgdm,size=6m,numbers=6", "countdown"), f"--workdir={tmp_path / 'run'}")
    run = tools.call("train", *argv)
    assert run.status == 2 and "unknown numbers '6'" in run.err


@pytest.mark.parametrize("file", FILES)
def test_file(file):
    source = (tools.ROOT / "configs" / f"{file}.py").read_text()
    assert len(source.splitlines()) <= 60
    header = source.split('"""')[1]
    assert re.search(r"^Command: +python -m ldd_jax ", header, re.M)
    assert re.search(r"not run yet|\b(run|measured|trained) (here|on)\b", header, re.S), (
        "the header must say whether the recipe has been run"
    )


@pytest.mark.parametrize("size", ["tiny", "6m", "small", "medium", "1b", "7b", "70b"])
@pytest.mark.parametrize("file", FILES)
def test_sizes_are_described(file, size):
    """All sizes make a config whose widths go with their heads; nothing is allocated."""
    from ldd_jax.core.registry import build
    from ldd_jax.core.types import TokenSpace

    own = {"scud": "lddm_scud", "patches": "patch_lddm", "joint": "lddm_joint", "rdlm": "lddm_rdlm"}
    # Those that begin with another run are of that run's size.
    own["latent_diffusion"] = "autoencoder"
    own |= {"block": "lddm_block"}
    method = own.get(file, "lddm_m")
    argv = [tools.recipe(f"{method},size={size}", file)]
    config = parse("train", COMMANDS["train"], argv).config
    model = build("model", config.model, tokens=TokenSpace(size=28, mask=27))
    assert model.width == config.model.width and model.latent == (method != "autoencoder")
