"""Points on a sphere through the commands, with digits and a latent, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ldd_jax.config.experiment import build
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core.checks import UserError
from ldd_jax.core.registry import section
from ldd_jax.denoisers import Tokens
from tests.cli import tools
from tests.cli.test_refusals import refused

CONFIG = tools.ROOT / "configs" / "rdlm.py"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(tools.sentences(200))
    return path


@pytest.mark.slow
def test_train_evaluate_sample_play(text, tmp_path):
    """Characters in base 3, the latent by digit; both rules, a prompt, a picture, refusals."""
    work, output = f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 's.jsonl'}"
    given = (*tools.SIZES, *tools.OPTIM, "--config.training.num_steps=6")
    config = f"--config={CONFIG}:method=lddm_rdlm,base=3"
    tools.good("train", config, work, *given, f"--config.data.path={text}")
    said = tools.good("evaluate", work, "--draws=1", "--max_sequences=8").out
    assert "2 passes" in said and "an upper bound" in said and "limit of small steps" in said
    prompt = tools.sentences(1)[:5]
    for flags, calls in ([], 5), (["--sampler=ancestral", "--tail=none"], 4):
        tools.good("sample", work, output, f"--prompt={prompt}", *flags)
        rows = tools.json_lines(tmp_path / "s.jsonl")
        assert {r["calls"] for r in rows} == {calls}
        assert all(len(r["tokens"]) == 16 and r["text"].startswith(prompt) for r in rows)
    tools.good("play", work, "--steps=3", "--delay=0")
    tools.good("report", work, "--steps=3", "--num_samples=2", f"--output={tmp_path / 'r.html'}")
    tools.good("bench", work, f"--output={tmp_path / 'bench'}", "--num_samples=2", "--steps=2",
               "--samplers=geodesic,ancestral", "--latents=carry")  # fmt: skip
    run = lambda *argv: tools.call(*argv, work)
    refused(run("sample", "--sampler=first_hitting"), "sampler first_hitting moves tokens")
    refused(run("sample", "--tail=greedy"), "tail greedy is of tokens")
    refused(run("evaluate", "--bound=carried"), "likelihood is not known")
    refused(run("evaluate", "--estimator=k_form"), "counts masks")
    refused(run("distill", "--steps=4", output), "are points")


@pytest.mark.parametrize(
    "argument, override, why",
    [
        ("method=mdlm", "seed=0", "moves no points"),
        ("prior=mixture", "seed=0", "no single process"),
        ("loss=mse", "seed=0", "unknown loss 'mse'"),
        ("base=x", "seed=0", "base=x"),
        ("base=1", "seed=0", "at least 2"),
        ("", "process.schedule.left=0.0", "must lie in"),
        ("", "objective.times.end=0.1", "is needed"),
    ],
)
def test_wrong_configs_are_refused_before_a_text_is_read(text, argument, override, why, tmp_path):
    work = tmp_path / "run"
    given = (f"--config.{override}", f"--workdir={work}", f"--config.data.path={text}")
    refused(tools.call("train", f"--config={CONFIG}:{argument}", *given), why)
    assert not work.exists()


def test_a_table_of_tokens_takes_no_points():
    config = make(
        arguments("", method="rdlm", size="tiny"),
        data=dict(length=8),
        model=dict(input=section(Tokens)),
    )
    with pytest.raises(UserError, match="are points, which do not enter this network"):
        build(config, SimpleNamespace(size=8))
