"""Folders of transformers as a user types them, without torch: import, use, adapt, export."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from ldd_jax.core.types import Cond
from ldd_jax.inference import loading
from tests.cli import tools
from tests.interop.tiny import GOLDEN

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The golden weights, and a tokenizer of 40 ids."""
    path = tmp_path_factory.mktemp("hf")
    for name in ("config.json", WEIGHTS):
        shutil.copy(GOLDEN / name, path)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    names = ["<pad>", "<s>", "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=40, special_tokens=names)
    tokenizer.train_from_iterator(tools.sentences(100).splitlines(), trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "text.txt"
    path.write_text(tools.sentences(200))
    return path


@pytest.fixture(scope="module")
def imported(folder, words, tmp_path_factory):
    work = tmp_path_factory.mktemp("imported") / "run"
    flags = (f"--workdir={work}", "--length=16", f"--data={words}")
    return work, tools.good("import", folder, *flags)


@pytest.mark.slow
def test_logits_are_those_that_transformers_gave(imported):
    work, result = imported
    assert "21 of 21 tensors come back byte for byte" in result.out
    experiment, params, _ = loading.load_trained(work)
    stored = np.load(GOLDEN / "logits.npz")
    for name in ("causal", "full"):
        model = dataclasses.replace(experiment.model, causal=name == "causal")

        def run(params, z, model=model):
            denoiser = model.bind(params)
            return denoiser.head(denoiser.trunk(z, Cond()).features)

        found = np.asarray(jax.jit(run)(params, stored["ids"]))
        np.testing.assert_allclose(found[..., :40], stored[name], rtol=0, atol=2e-5)
    table = np.asarray(params["trunk"]["embed"]["table"])
    assert table.shape == (41, 16)  # the mask, one more row
    np.testing.assert_allclose(table[40], table[:40].mean(0), atol=1e-6)
    assert experiment.process.begin == 1 and experiment.tokens.mask == 40
    assert experiment.tokenizer.bos == 1 and experiment.tokenizer.eos == 2


def test_an_export_has_the_same_bytes(imported, tmp_path):
    work, _ = imported
    tools.good("export", f"--workdir={work}", "--format=transformers", f"--output={tmp_path / 'o'}")
    old, new = (load_file(p / WEIGHTS) for p in (GOLDEN, tmp_path / "o"))
    assert {n: a.tobytes() for n, a in old.items()} == {n: a.tobytes() for n, a in new.items()}
    read = lambda p: json.loads((p / "config.json").read_text())
    assert read(tmp_path / "o") == read(GOLDEN)
    assert (tmp_path / "o" / "tokenizer.json").is_file()
    assert "AutoModelForCausalLM" in (tmp_path / "o" / "README.md").read_text()


TUNE = (
    "--config.training.num_steps=4",
    "--config.training.batch_size=8",
    "--config.training.checkpoint_every=2",
    "--config.training.eval_every=0",
    "--config.training.sample_every=0",
    "--config.optim.warmup_steps=2",
    "--config.objective.anneal_steps=3",
    "--config.evaluation.max_sequences=16",
    "--config.sampling.num_samples=2",
    "--config.sampling.num_steps=4",
    "--config.data.split=line",
)


@pytest.mark.slow
def test_it_samples_is_scored_becomes_a_diffusion_model_with_a_latent_and_goes_back(
    imported, words, tmp_path
):
    work, _ = imported
    short = ("--max_sequences=16",)
    assert "nats" in tools.good("evaluate", f"--workdir={work}", *short).out
    tools.good("sample", f"--workdir={work}", "--num_samples=2", f"--output={tmp_path / 'a.jsonl'}")
    config = f"--config={tools.ROOT}/configs/adapt.py:from={work},method=lddm_m"
    tuned = tmp_path / "tuned"
    result = tools.good("train", config, f"--workdir={tuned}", *TUNE)
    assert f"begins with the averaged parameters of {work} at step 0" in result.out
    said = json.loads((tuned / "config.json").read_text())
    assert said["model"]["shift"] == "start" and said["model"]["begin"] == 1
    assert said["process"]["name"] == "masked" and said["process"]["mask"] == 40
    assert "nats" in tools.good("evaluate", f"--workdir={tuned}", *short).out
    output = tmp_path / "s.jsonl"
    tools.good("sample", f"--workdir={tuned}", "--num_samples=2", f"--output={output}")
    assert all(0 <= t < 40 for r in tools.json_lines(output) for t in r["tokens"])
    out = tmp_path / "out"
    tools.good("export", f"--workdir={tuned}", "--format=transformers", f"--output={out}")
    tensors, config = load_file(out / WEIGHTS), json.loads((out / "config.json").read_text())
    assert tensors["model.embed_tokens.weight"].shape == (41, 16)
    assert config["vocab_size"] == 41 and config["mask_token_id"] == 40
    assert set(load_file(out / "latent.safetensors")) == {
        "trunk.latent_norm.norm.scale",
        "trunk.latent_norm.norm.bias",
    }
    assert "4-D float" in (out / "README.md").read_text()
    low = tmp_path / "low"
    config = f"--config={tools.ROOT}/configs/finetune.py:from={tuned}"
    own = [f for f in TUNE if "anneal" not in f]
    tools.good("train", config, f"--workdir={low}", *own, "--config.model.lora_rank=2")
    assert json.loads((low / "config.json").read_text())["objective"]["anneal_steps"] == 0
    longer = (*own, "--config.model.lora_rank=2", "--config.training.num_steps=8")
    assert "updates 4 to 8" in tools.good("train", config, f"--workdir={low}", *longer).out
    tools.good("export", f"--workdir={low}", "--format=transformers", f"--output={tmp_path / 'l'}")
    merged = load_file(tmp_path / "l" / WEIGHTS)
    same = {n: a.tobytes() == tensors[n].tobytes() for n, a in merged.items()}
    assert same == {n: "_proj" not in n for n in tensors}  # only adapted layers have moved
    wrong = tools.call("train", config_of(tuned), f"--workdir={tmp_path / 'no'}", *TUNE)
    assert wrong.status == 2 and "autoregressive runs" in wrong.err


def config_of(workdir):
    return f"--config={tools.ROOT}/configs/adapt.py:from={workdir}"


def changed(folder, to, *, tensors=None, drop=(), **fields):
    """A copy with other tensors or fields; None deletes a field."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text()) | fields
    (to / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if v is not None or k == "pad_token_id"})
    )
    there = load_file(to / WEIGHTS) | (tensors or {})
    save_file({n: a for n, a in there.items() if n not in drop}, to / WEIGHTS)
    return to


WRONG = {
    "missing": (dict(drop=["model.layers.1.mlp.up_proj.weight"]), "missing model.layers.1.mlp.up"),
    "surplus": (dict(tensors={"model.extra": np.zeros(3, np.float32)}), "surplus model.extra"),
    "misshapen": (
        dict(tensors={"model.norm.weight": np.zeros(3, np.float32)}),
        "misshapen model.norm.weight is (3,), expected (16,)",
    ),
    "unknown": (dict(model_type="mistral3"), "model_type 'mistral3' is not known here"),
    "no type": (dict(model_type=None), "model_type None is not known here"),
    "code": (dict(auto_map={"AutoModel": "m.M"}), "auto_map"),
    "other code": (dict(model_type="mine", auto_map={"A": "m.M"}), "code in the folder (auto_map)"),
    "scaling": (dict(rope_parameters={"rope_type": "longrope"}), "'longrope' is not known here"),
    "activation": (dict(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "biased": (dict(attention_bias=True), "attention_bias is True"),
    "number": (dict(hidden_size="16"), "hidden_size is '16'"),
    "window": (dict(model_type="qwen2", use_sliding_window=True), "use_sliding_window"),
    "mask": (dict(model_type="sdar"), "give --mask=TOKEN or --mask=ID"),
    "tokens": (dict(vocab_size=30), "the tokenizer has 40 ids"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name, folder, tmp_path):
    change, why = WRONG[name]
    source = changed(folder, tmp_path / "hf", **change)
    result = tools.call("import", source, f"--workdir={tmp_path / 'run'}")
    assert result.status == 2 and why in result.err and len(result.err.splitlines()) == 1, result
    assert not (tmp_path / "run").exists()


def test_pickles_and_torn_indices_are_refused(folder, tmp_path):
    source = changed(folder, tmp_path / "hf")
    weights = source / WEIGHTS
    index = source / f"{WEIGHTS}.index.json"

    def refused(why):
        result = tools.call("import", source, f"--workdir={tmp_path / 'run'}")
        assert result.status == 2 and why in result.err, result
        assert len(result.err.splitlines()) == 1

    names = list(load_file(weights))
    shutil.move(weights, source / "one.safetensors")
    (source / "pytorch_model.bin").write_bytes(b"PK")
    refused("pytorch_model.bin, a pickle")
    listed = lambda where, names=names: index.write_text(
        json.dumps({"weight_map": dict.fromkeys(names, where)})
    )
    listed("../hf/one.safetensors")
    refused("outside its folder")
    listed("two.safetensors")
    refused("lists two.safetensors, which is not there")
    listed("one.safetensors", names[1:])
    refused("not listed")
    listed("one.safetensors")
    tools.good("import", source, f"--workdir={tmp_path / 'run'}", "--mask=<pad>")
    experiment, _, _ = loading.load_trained(tmp_path / "run")
    assert experiment.tokens.mask == 0 and experiment.tokens.size == 40
