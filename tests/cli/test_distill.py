"""distill as a user types it: the file it writes is what sample and bench take."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldd_jax.bench import cells
from ldd_jax.config.sections import Sampling
from ldd_jax.core.checks import UserError
from ldd_jax.samplers import Ancestral, CosineGrid
from tests.cli import tools
from tests.cli.test_refusals import refused

FEW = ("--steps=3", "--num_samples=24")


@pytest.fixture(scope="module")
def learned(trained, tmp_path_factory):
    """(what it said, the file)."""
    output = tmp_path_factory.mktemp("grids") / "three.json"
    flags = (f"--workdir={trained('lddm_m')}", f"--output={output}")
    return tools.good("distill", *flags, *FEW), output


@pytest.mark.slow
def test_a_grid_and_its_bounds(learned):
    run, output = learned
    found = json.loads(output.read_text())
    assert found["steps"] == 3 and found["grid"]["name"] == "table"
    times = found["grid"]["times"]
    assert times[0] == 1 and len(times) == 4 and (np.diff(times) < 0).all()
    assert len(found["losses"]) == 16 and sum(found["measurements"]) > 24
    assert found["latent"]["reset_every"] == 0 and found["recipe"].startswith("method=lddm_m")
    bounds = {b["name"]: b for b in found["bounds"]}
    assert list(bounds) == ["linear", "cosine", "counts", "learned"]
    assert bounds["learned"]["times"] == times
    # What was minimised is least for the learned grid, whatever twelve updates have taught.
    assert all(bounds["learned"]["expected"] <= b["expected"] + 1e-6 for b in bounds.values())
    for b in bounds.values():
        assert 1 < b["nats"] < 5 and b["se"] > 0
        assert abs(b["nats"] - b["expected"]) < 0.3  # training and validation rows are alike
        assert f"{b['nats']:.4f} +- {b['se']:.4f}" in run.out
    assert {bounds["linear"]["above"], bounds["cosine"]["above"]} >= {0.0}


@pytest.mark.slow
def test_the_published_loss_by_name(trained, tmp_path):
    """Its grid is handed out, and bounded beside the others."""
    output = tmp_path / "matched.json"
    flags = (f"--workdir={trained('lddm_m')}", f"--output={output}", "--objective=trajectory")
    tools.good("distill", *flags, *FEW)
    found = json.loads(output.read_text())
    bounds = {b["name"]: b for b in found["bounds"]}
    assert (
        found["objective"] == "trajectory" and found["grid"]["times"] == bounds["matched"]["times"]
    )
    u = np.array(found["grid"]["times"])
    # The first scale is 1, as both runs begin alike; the others are below 1 and leave more masked.
    assert u[1] == pytest.approx(2 / 3, abs=1e-3) and u[2] > 0.35 and u[3] > 0.1
    assert bounds["matched"]["expected"] >= bounds["learned"]["expected"]


@pytest.mark.slow
def test_factors_of_the_rate_without_masks(trained, tmp_path):
    """Tau-leaping is the learned one then; a sampler that is named stays."""
    output = tmp_path / "factors.json"
    flags = (f"--workdir={trained('udlm')}", f"--output={output}", *FEW)
    run = tools.good("distill", *flags)
    found = json.loads(output.read_text())
    factors = found["step"]["scales"]
    assert found["step"]["name"] == "tau_leaping" and len(factors) == found["steps"] == 3
    assert all(0.01 < f <= 2 for f in factors) and found["nats"] > 0
    # Unscaled, the first step's rate is some hundred: a position would surely leave its token.
    assert found["plain"] is None and factors[0] < 0.1
    assert f"{found['nats']:.4f} nats/token, inf with none (-inf)" in run.out
    for more, name in (((), "tau_leaping"), (("--sampler=ancestral",), "ancestral")):
        samples = tmp_path / f"{name}.jsonl"
        flags = (f"--workdir={trained('udlm')}", f"--grid={output}", f"--output={samples}", *more)
        tools.good("sample", *flags)
        (first, *_) = tools.json_lines(samples)
        assert first["settings"]["step"]["name"] == name and first["steps"] == 3
    chosen = cells.parse_sampler(f"default:grid={output}", Sampling())
    assert list(chosen.step.scales) == factors
    assert cells.parse_sampler(f"ancestral:grid={output}", Sampling()).step == Ancestral()


@pytest.mark.slow
def test_sampling_along_it(learned, trained, tmp_path):
    """The file's steps count unless others are asked for."""
    _, output = learned
    for flags, steps in (((), 3), (("--steps=5",), 5)):
        samples = tmp_path / f"{steps}.jsonl"
        flags = (f"--workdir={trained('lddm_m')}", f"--grid={output}", *flags)
        tools.good("sample", *flags, f"--output={samples}")
        records = tools.json_lines(samples)
        assert {(r["steps"], r["calls"]) for r in records} == {(steps, steps)}
        assert records[0]["settings"]["grid"] == json.loads(output.read_text())["grid"]


def test_a_bench_tells_grids_by_what_they_hold(learned, tmp_path):
    _, output = learned
    chosen = cells.parse_sampler(f"ancestral:grid={output}:top_p=0.9", Sampling())
    assert list(chosen.grid.times) == json.loads(output.read_text())["grid"]["times"]
    assert cells.parse_sampler("default:grid=cosine", Sampling()).grid == CosineGrid()
    other = tmp_path / "three.json"
    other.write_text('{"grid": {"name": "table", "times": [1, 0.5, 0.1, 0]}}')
    names = [cells.told(f"ancestral:grid={p}:top_p=0.9") for p in (output, other)]
    assert names[0][1] == names[1][1] == "top_p=0.9" and names[0][0] != names[1][0]
    assert all(name[0].startswith("grid=three-") for name in names)
    assert cells.told("default:grid=cosine") == ["grid=cosine"]
    with pytest.raises(UserError, match="'cosin'"):
        cells.parse_sampler("ancestral:grid=cosin", Sampling())


def test_temperatures_go_with_a_grid(trained, tmp_path):
    """A list beside the grid is the read-out's, in sample and in bench."""
    path, output = tmp_path / "hot.json", tmp_path / "hot.jsonl"
    made = {"grid": {"name": "linear"}, "steps": 2, "temperatures": [2, 1.0, 0.5]}
    path.write_text(json.dumps(made))
    flags = (f"--workdir={trained('lddm_m')}", f"--grid={path}", "--temperature=0.9")
    tools.good("sample", *flags, f"--output={output}")
    records = tools.json_lines(output)
    assert records[0]["settings"]["readout"]["temperatures"] == [2.0, 1.0, 0.5]
    assert records[0]["settings"]["readout"]["temperature"] == 0.9 and records[0]["steps"] == 2
    chosen = cells.parse_sampler(f"ancestral:grid={path}:top_k=3", Sampling())
    assert chosen.readout.temperatures == (2.0, 1.0, 0.5) and chosen.readout.top_k == 3
    plain = tmp_path / "hot" / "hot.json"
    plain.parent.mkdir()
    plain.write_text('{"grid": {"name": "linear"}}')
    assert cells.told(f"ancestral:grid={plain}") != cells.told(f"ancestral:grid={path}")


BAD = {
    "missing": (None, "No such file"),
    "text": ("no", "cannot be read"),
    "list": ("[1]", "holds no 'grid'"),
    "another": ('{"grid": [1, 0]}', "holds no 'grid'"),
    "kind": ('{"grid": {"name": "tabel"}}', "did you mean 'table'"),
    "rising": ('{"grid": {"name": "table", "times": [1, 0.1, 0.2]}}', "times rise to 0.2"),
    "huge": ('{"grid": {"name": "table", "times": [1, 1e999]}}', "expected a finite number"),
    "words": ('{"grid": {"name": "table", "times": ["a"]}}', "expected float"),
    "cold": ('{"grid": {"name": "linear"}, "temperatures": [0]}', "temperatures are (0.0,)"),
    "warm": ('{"grid": {"name": "linear"}, "temperatures": "warm"}', "expected a list of numbers"),
    "steps": ('{"grid": {"name": "table"}, "steps": -3}', "steps is -3"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_hold_no_grid(name, trained, tmp_path):
    text, words = BAD[name]
    if text is not None:
        (tmp_path / "g.json").write_text(text)
    flags = (f"--workdir={trained('lddm_m')}", f"--grid={tmp_path / 'g.json'}")
    refused(tools.call("sample", *flags, f"--output={tmp_path / 'out'}"), words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "method, flags, words",
    [
        ("udlm", ("--steps=3", "--objective=trajectory"), "masked diffusion"),
        ("lddm_m", (), "--steps is missing"),
        ("lddm_m", ("--steps=0",), "--steps=0"),
        ("lddm_m", ("--steps=3", "--num_samples=-1"), "--num_samples=-1"),
        ("mdlm", ("--steps=3", "--latent=off"), "takes no latent"),
    ],
)
def test_what_cannot_be_distilled(method, flags, words, trained, tmp_path):
    output = tmp_path / "grid.json"
    where = (f"--workdir={trained(method)}", f"--output={output}")
    refused(tools.call("distill", *where, *flags), words)
    assert not output.exists()
    refused(tools.call("distill", where[0], "--steps=3"), "--output is missing")
