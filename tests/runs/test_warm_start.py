"""A run that begins with another's parameters, as typed: the same function, more text, a latent."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

from ldd_jax.config import experiment as experiments
from ldd_jax.config import tuned
from ldd_jax.core import registry
from ldd_jax.inference import evaluate, loading
from ldd_jax.runs import warm_start
from ldd_jax.training import state as states
from ldd_jax.training.preemption import Stop, Stopped
from tests.cli import tools
from tests.cli.test_refusals import refused
from tests.interop.test_import_export import checkpoint

FLAGS = (
    "--config.training.num_steps=6",
    "--config.training.eval_every=3",
    "--config.training.checkpoint_every=3",
    "--config.training.log_every=2",
    "--config.optim.warmup_steps=2",
)


def recipe(workdir, *more):
    return f"--config={tools.ROOT}/configs/finetune.py:" + ",".join([f"from={workdir}", *more])


@pytest.fixture(scope="module")
def other_text(tmp_path_factory):
    """Text with characters that the old tokenizer does not know."""
    path = tmp_path_factory.mktemp("other") / "text.txt"
    path.write_text(tools.sentences(200).replace("r", "Ж"))
    return path


def experiment_corpus(experiment):
    return registry.build("data", experiment.config.data).load(experiment.tokenizer)


@pytest.mark.slow
def test_added_loopholing_is_the_same_function_at_first(trained, tmp_path):
    """With the latent's LayerNorm at zero, every pass says what the old network says."""
    base = trained("mdlm")
    config = tuned.fine_tune(str(base), "lddm_m")
    old, old_params, _ = loading.load_trained(base)
    new = experiments.build(config, old.tokenizer)
    fresh = states.initial(new.model, new.update.optimizer, new.mesh, new.key(0))
    begun, said = warm_start.begin(new, fresh)
    assert "at step 12" in said
    corpus = experiment_corpus(old)
    was = evaluate.evaluate_split(old, corpus, old_params, draws=2).nats
    for passes in (1, 2):
        assert evaluate.evaluate_split(new, corpus, begun.ema, passes=passes, draws=2).nats == was
    assert evaluate.evaluate_split(new, corpus, fresh.ema, passes=1, draws=2).nats != was
    # Parameters and their average are two copies: the step donates both.
    assert all(a is not b for a, b in zip(*map(jax.tree.leaves, (begun.params, begun.ema))))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["", "method=lddm_m", "method=mgdm"])
def test_goes_on_with_other_text(trained, other_text, tmp_path, method):
    base, workdir = trained("mdlm"), tmp_path / "tuned"
    flags = (*tools.corpus(other_text), *FLAGS)
    result = tools.good(
        "train", recipe(base, *filter(None, [method])), f"--workdir={workdir}", *flags
    )
    assert f"begins with the averaged parameters of {base} at step 12" in result.out
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["latent"] == (method == "method=lddm_m")
    assert config["evaluation"]["passes"] == 1 + (method == "method=lddm_m")
    read = lambda d: (d / "tokenizer" / "tokenizer.json").read_text()
    assert read(workdir) == read(base)
    tools.good("sample", f"--workdir={workdir}", "--num_samples=2", "--steps=3")
    assert not any("Ж" in r["text"] for r in tools.json_lines(workdir / "samples.jsonl"))


@pytest.mark.slow
def test_resumes_without_the_first_run(trained, other_text, tmp_path, monkeypatch):
    """What it began with is needed once; a stopped run ends in the same bits as one left alone."""
    base = tmp_path / "base"
    shutil.copytree(trained("mdlm"), base)
    args = (recipe(base, "method=lddm_m"), *tools.corpus(other_text), *FLAGS)
    tools.good("train", f"--workdir={tmp_path / 'whole'}", *args)
    asked = {"count": 0}

    def reached(self):
        asked["count"] += 1
        return asked["count"] == 4

    with monkeypatch.context() as patched:
        patched.setattr(Stop, "reached", reached)
        patched.setattr(Stop, "check", lambda self: stop_if(asked["count"] >= 4))
        assert tools.call("train", f"--workdir={tmp_path / 'cut'}", *args).status == 75
    saved = json.loads((base / "config.json").read_text())
    shutil.rmtree(base / "checkpoints")
    assert tools.good("train", f"--workdir={tmp_path / 'cut'}", *args).out.count("begins with") == 0
    whole, cut = (loading.load_trained(tmp_path / n)[1] for n in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    assert saved["model"]["latent"] is False


def stop_if(yes):
    if yes:
        raise Stopped


@pytest.mark.slow
def test_an_import_is_tuned(tmp_path):
    """A reference-format checkpoint goes on, on ids, with loopholing added."""
    file, _ = checkpoint(tmp_path, loop=False)
    tools.good("import", file, "--method=mdlm", f"--workdir={tmp_path / 'run'}", "--length=12")
    draw = np.random.default_rng(0)
    rows = tmp_path / "ids.txt"
    rows.write_text("\n".join(" ".join(map(str, draw.integers(0, 6, 40))) for _ in range(60)))
    flags = (*tools.corpus(rows), *FLAGS, "--config.training.batch_size=8")
    tuned = tmp_path / "tuned"
    tools.good("train", recipe(tmp_path / "run", "method=lddm_m"), f"--workdir={tuned}", *flags,
               "--config.optim.lr=3e-2")  # fmt: skip
    found = tools.json_lines(tuned / "metrics.jsonl")
    nats = [r["validation/nelbo_nats_per_token"] for r in found if "validation/nelbo_se" in r]
    assert nats[-1] < nats[0]
    # And out again, under the reference's names, now with the latent's LayerNorm.
    tools.good("export", f"--workdir={tuned}", f"--output={tmp_path / 'out'}")
    tools.good("import", tmp_path / "out", "--method=lddm_m", f"--workdir={tmp_path / 'again'}")


@pytest.mark.parametrize(
    "base, more, flags, words",
    [
        ("", (), (), "from=WORKDIR"),
        ("nowhere", (), (), "is not a workdir"),
        ("mdlm", ("method=lddm_x",), (), "lddm_m"),
        ("mdlm", ("method=lddm_u",), (), "masked process"),
        ("mdlm", ("method=hollow",), (), "dit network"),
        ("lddm_m", ("method=mdlm",), (), "trunk.latent_norm.norm.bias is not known here"),
        ("mdlm", (), ("--config.model.width=32",), "model.width: 16 there, 32 here"),
        ("mdlm", (), ("--config.model.causal=True",), "model.causal: False there, True here"),
    ],
    ids=lambda v: str(v)[:24],
)
@pytest.mark.slow
def test_refusals(trained, other_text, tmp_path, base, more, flags, words):
    workdir = trained(base) if base in ("mdlm", "lddm_m") else base and tmp_path / base
    given = (*tools.corpus(other_text), *FLAGS, *flags)
    result = tools.call("train", recipe(workdir, *more), f"--workdir={tmp_path / 'new'}", *given)
    refused(result, words)
    assert not (tmp_path / "new").exists()
