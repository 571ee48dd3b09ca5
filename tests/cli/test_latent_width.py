"""A latent narrower than the network: trained, continued, sampled, watched, exported."""

from __future__ import annotations

import json

import pytest

from ldd_jax.config.stored import SECTIONS
from ldd_jax.core import registry
from tests.cli import tools

FLAGS = (*tools.SIZES, *tools.OPTIM, *tools.STEPS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "text.txt").write_text(tools.sentences(400))
    given = (tools.recipe("lddm_m"), f"--workdir={folder / 'run'}", *FLAGS)
    given = (*given, *tools.corpus(folder / "text.txt"), "--config.model.latent_width=5")
    tools.good("train", *given)
    return folder / "run", given


def sampled(workdir):
    tools.good("sample", f"--workdir={workdir}", "--num_samples=2", "--steps=3")
    return [r["text"] for r in tools.json_lines(workdir / "samples.jsonl")]


@pytest.mark.slow
def test_it_samples_and_is_watched(run):
    workdir, _ = run
    assert json.loads((workdir / "summary.json").read_text())["passes"] == 2
    assert len(sampled(workdir)) == 2
    tools.good("mechanism", f"--workdir={workdir}", "--steps=3", "--num_samples=2")
    curves = tools.json_lines(workdir / "mechanism.jsonl")[0]["curves"]
    assert all(v is not None for v in curves["norm"])


@pytest.mark.slow
def test_the_reference_has_no_such_network(run, tmp_path):
    workdir, _ = run
    result = tools.call("export", f"--workdir={workdir}", f"--output={tmp_path / 'out'}")
    assert result.status == 2 and "5 of 16 channels" in result.err, result
    assert not list(tmp_path.iterdir())
    own = tmp_path / "own"
    tools.good("export", f"--workdir={workdir}", f"--output={own}", "--names=own")
    assert "5 channels" in (own / "README.md").read_text()
    tools.good("import", own, f"--workdir={tmp_path / 'back'}")
    assert sampled(tmp_path / "back") == sampled(workdir)


@pytest.mark.slow
def test_a_run_older_than_a_field_goes_on(run):
    """A config without fields that are at their defaults is that of the same run."""
    workdir, given = run
    kept = json.loads((workdir / "config.json").read_text())
    old = json.loads(json.dumps(kept))
    del old["model"]["dropout"], old["objective"]["context"]["passes"]
    for name in SECTIONS:
        assert registry.filled(name, old[name]) == kept[name]
    (workdir / "config.json").write_text(json.dumps(old))
    tools.good("train", *given)
    del old["model"]["latent_width"]  # not at its default: another run
    (workdir / "config.json").write_text(json.dumps(old))
    result = tools.call("train", *given)
    assert result.status == 2 and "model.latent_width: 0 there, 5 given" in result.err, result
