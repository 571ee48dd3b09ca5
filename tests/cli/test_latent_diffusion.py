"""Texts as vectors through the commands: an autoencoder, its diffusion, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ldd_jax.config.experiment import build
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.checks import UserError
from tests.cli import tools
from tests.cli.test_refusals import refused

CONFIG = tools.ROOT / "configs" / "latent_diffusion.py"
SHORT = (*tools.OPTIM, "--config.training.num_steps=6", "--config.training.batch_size=8",
         "--config.training.log_every=3", "--config.evaluation.max_sequences=8",
         "--config.evaluation.draws=1", "--config.sampling.num_samples=3",
         "--config.sampling.num_steps=4")  # fmt: skip
SMALL = (*tools.SIZES, "--config.model.encoder=1", "--config.model.decoder=1")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(tools.sentences(200))
    return path


@pytest.mark.slow
def test_two_runs(text, tmp_path):
    """The second has data, encoder and decoder of the first; both say of what sum they are."""
    code, work = tmp_path / "code", f"--workdir={tmp_path / 'run'}"
    output = f"--output={tmp_path / 's.jsonl'}"
    config = f"--config={CONFIG}:method=autoencoder,vectors=4,numbers=6"
    tools.good("train", config, f"--workdir={code}", f"--config.data.path={text}", *SMALL, *SHORT)
    said = tools.good("evaluate", f"--workdir={code}").out
    assert all(f" {term}" in said for term in ("diffusion +", "prior +", "reconstruction"))
    assert "1 pass," in said and "an upper bound" in said and "left to right" in said
    config = f"--config={CONFIG}:method=lddm_latent_diffusion,from={code}"
    tools.good("train", config, work, *SHORT)
    lines = tools.json_lines(tmp_path / "run" / "metrics.jsonl")
    assert any("train_loss" in r for r in lines)
    written = tmp_path / "e.jsonl"
    said = tools.good("evaluate", work, f"--output={written}").out
    record = tools.json_lines(written)[0]
    assert "2 passes" in said and abs(
        sum(record["terms"].values()) - record["nelbo_nats_per_token"]
    ) < 1e-6  # fmt: skip
    for flags, calls in ([], 4 + 16), (["--steps=2", "--tail=sample", "--temperature=0"], 3 + 16):
        tools.good("sample", work, output, *flags)
        rows = tools.json_lines(tmp_path / "s.jsonl")
        assert {r["calls"] for r in rows} == {calls} and len(rows) == 3
        assert all(len(r["tokens"]) == 16 and r["text"] for r in rows)
    tools.good("sample", work, output, "--latent=off", "--sampler=geodesic")
    tools.good("plan", config, "--what=parameters", *SHORT)
    run = lambda *argv: tools.call(*argv, work)
    refused(run("sample", "--prompt=the"), "knows no law of them given a part")
    refused(run("sample", "--fill=the [MASK] house"), "knows no law of them given a part")
    refused(run("sample", "--sampler=first_hitting"), "sampler first_hitting moves tokens")
    refused(run("sample", "--tail=greedy"), "tail greedy is of tokens")
    refused(run("sample", "--blocks=slide:size=4", "--length=24"), "is made whole")
    refused(run("evaluate", "--prompt_tokens=3"), "score whole rows")
    refused(run("evaluate", "--bound=carried", "--tail=sample"), "likelihood is not known")
    refused(run("evaluate", "--estimator=k_form"), "counts masks")
    refused(run("distill", "--steps=4", output), "are points")
    refused(run("play"), "this one draws vectors")
    refused(run("report", f"--output={tmp_path / 'r.html'}"), "this one draws vectors")
    refused(run("bench", f"--output={tmp_path / 'bench'}"), "this one draws vectors")
    refused(run("mechanism", output), "this one draws vectors")


@pytest.mark.parametrize(
    "argument, override, why",
    [
        ("method=mdlm", "seed=0", "has no vectors"),
        ("method=latent_diffusion", "seed=0", "give from=WORKDIR"),
        ("from=nowhere", "seed=0", "begins with no run"),
        ("vectors=x", "seed=0", "vectors=x"),
        ("", "process.vectors=3", "the network (model compressor) has 16 and 16"),
        ("", "process.schedule.least=0.0", "must lie in"),
        ("", "model.size=1", "2 numbers or more"),
        ("", "objective.times.eps=1.0", "must lie in"),
    ],
)
def test_wrong_configs_are_refused_before_a_text_is_read(text, argument, override, why, tmp_path):
    work = tmp_path / "run"
    given = (f"--config.{override}", f"--workdir={work}", f"--config.data.path={text}")
    refused(tools.call("train", f"--config={CONFIG}:{argument}", *given), why)
    assert not work.exists()


@pytest.mark.parametrize(
    "method, network, why",
    [
        ("autoencoder", "mdlm", r"network \(model dit\) has 0 and 0"),
        ("mdlm", "autoencoder", "this process moves none"),
    ],
)
def test_parts_that_do_not_go_together(method, network, why):
    chosen = lambda name: make(arguments("", method=name, size="tiny"), data=dict(length=8))
    config = chosen(method).unlock()
    config.model = chosen(network).model
    with pytest.raises(UserError, match=why):
        build(config.lock(), SimpleNamespace(size=8))


def test_the_loss_of_tokens_knows_no_vectors():
    config = make(arguments("", method="autoencoder", size="tiny"), data=dict(length=8)).unlock()
    config.objective = make(arguments("", method="mdlm", size="tiny")).objective
    with pytest.raises(UserError, match="objective nelbo knows no vectors"):
        build(config.lock(), SimpleNamespace(size=8))
