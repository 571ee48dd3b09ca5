"""Samplers of a target from the command line: train, resume, measure, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ldd_jax.inference import loading
from ldd_jax.targets import Ising
from ldd_jax.training.checkpoints import Checkpoints
from tests.cli import tools
from tests.cli.test_refusals import refused

METHODS = ("mdns", "lddm_mdns", "mdns_lv", "lddm_mdns_lv")
SMALL = (
    "--config.model.width=16",
    "--config.training.batch_size=8",
    "--config.training.log_every=1",
    "--config.optim.decay=constant",
    "--config.evaluation.batch_size=32",
    "--config.evaluation.max_sequences=64",
    "--config.sampling.num_samples=2",
    "--config.sampling.batch_size=2",
)
STEPS = "--config.training.num_steps="


def ising(method, more="side=2"):
    return f"--config={tools.ROOT / 'configs' / 'ising.py'}:method={method},{more}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """method -> workdir, trained for eight updates."""
    done = {}

    def get(method):
        if method not in done:
            workdir = tmp_path_factory.mktemp("targets") / method
            tools.good("train", ising(method), f"--workdir={workdir}", *SMALL, f"{STEPS}8")
            done[method] = workdir
        return done[method]

    return get


@pytest.mark.parametrize("method", [pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:]])
def test_every_method_trains_and_is_measured(method, runs, tmp_path):
    measured(method, runs, tmp_path)


@pytest.mark.slow
def test_a_run_and_its_measurement(runs, tmp_path):
    measured("mdns", runs, tmp_path)


def measured(method, runs, tmp_path):
    workdir, output = runs(method), tmp_path / "energy.json"
    losses = [r["train_loss"] for r in tools.curve(workdir) if "train_loss" in r]
    assert len(losses) == 8 and all(loss > 0 for loss in losses)
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["rollouts"] == 64 and 0 < summary["ess"] <= 1
    assert (workdir / "curve.png").is_file()
    run = tools.good("energy", f"--workdir={workdir}", "--num_samples=300", f"--output={output}")
    (found,) = tools.json_lines(output)
    assert found["exact_log_z"] == pytest.approx(3.4381745554, abs=1e-9)
    assert found["exact_by"] == "16 configurations enumerated" and "exact 3.438175" in run.out
    # A network that knows nothing yet has unbiased weights, if not good ones.
    assert abs(found["log_z"] - found["exact_log_z"]) < 5 * found["log_z_se"] + 0.05
    assert found["elbo"] < found["log_z"] and found["path_kl"] > 0
    for name in ("energy", "magnetisation", "abs_magnetisation", "two_point_1"):
        off = abs(found[name] - found[f"exact_{name}"])
        assert off < 5 * found[f"{name}_se"] + 0.05, name
    assert found["rollouts"] == 300 and found["latent_carried"] == method.startswith("lddm")
    assert found["target"]["name"] == "ising" and found["checkpoint"] == 8
    assert f"ELBO      {found['elbo']:.5f} +- {found['elbo_se']:.5f} nats" in run.out
    tools.good("sample", f"--workdir={workdir}", f"--output={tmp_path / 's.jsonl'}")
    records = tools.json_lines(tmp_path / "s.jsonl")
    assert all(set(r["text"].split()) <= {"0", "1"} for r in records)
    assert {r["calls"] for r in records} == {4}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mdns", "mdns_lv"])
def test_a_run_goes_on_to_the_bit(method, runs, tmp_path):
    """Stopped between two rollouts: buffer, parameters and losses are those of a run in one go."""
    whole, parts = runs(method), tmp_path / "parts"
    for steps in (3, 8):
        tools.good("train", ising(method), f"--workdir={parts}", *SMALL, f"{STEPS}{steps}")
    train = lambda workdir: [r for r in tools.curve(workdir) if "train_loss" in r]
    assert train(parts) == train(whole)
    states = []
    for workdir in (whole, parts):
        experiment, _, _ = loading.load_trained(workdir)
        state, _ = Checkpoints(workdir, read_only=True).restore(experiment.abstract())
        states.append(state)
    import jax

    aux = states[0].aux
    assert aux == () if method == "mdns_lv" else (aux.nats > 0).all() and aux.x.shape == (8, 4)
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, states))


PLUGIN = '''
import dataclasses
import jax.numpy as jnp
from ldd_jax.core.registry import register
from ldd_jax.targets import Target

@register("target", "coins")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Coins(Target):
    """Coins that come up heads with odds e^bias."""
    bias: float = 1.0
    sites = 4
    states = 2
    def log_weight(self, x_BL):
        return self.bias * jnp.sum(x_BL, 1).astype(jnp.result_type(float))
    def observables(self, x_BL):
        return {"heads": jnp.mean(x_BL, 1, dtype=jnp.result_type(float))}
'''
CONFIG = """
from ldd_jax.config.recipes import arguments, make
from ldd_jax.core import registry
from ldd_jax.data import TargetData

def get_config(argument=""):
    coins = registry.find("target", "coins")
    chosen = arguments(argument, method="mdns", size="tiny")
    return make(chosen, source=TargetData, data=dict(target=coins, length=4),
                model=dict(adaln=False, depth=1, heads=2))
"""


@pytest.mark.slow
def test_a_weight_of_ones_own_by_plugin(tmp_path, own_registry):
    for name, text in (("coins.py", PLUGIN), ("config.py", CONFIG)):
        (tmp_path / name).write_text(text)
    plugin, work = f"--plugin={tmp_path / 'coins.py'}", f"--workdir={tmp_path / 'run'}"
    tools.good("train", plugin, f"--config={tmp_path / 'config.py'}", work, *SMALL, f"{STEPS}2")
    out = tools.good("energy", work, "--num_samples=200", f"--output={tmp_path / 'e'}").out
    (found,) = tools.json_lines(tmp_path / "e")
    assert found["exact_log_z"] == pytest.approx(4 * np.log1p(np.e), abs=1e-9)
    assert found["exact_heads"] == pytest.approx(1 / (1 + np.exp(-1))) and "heads" in out


@pytest.mark.parametrize(
    "method, flags, words",
    [
        ("mdns", ("--config.data.target.side=3",), "set data.length to 9"),
        ("mdns", ("--config.data.target.beta=0.0",), "beta is 0.0"),
        ("mdns,beta=warm", (), "beta=warm: expected a number"),
        ("mdns", ("--config.model.time_conditioning=True", "--config.model.adaln=True"),
         "set model.time_conditioning to False"),
        ("mdns_lv", ("--config.training.batch_size=1",), "a variance needs two rollouts"),
        ("lddm_mdns", ("--config.objective.context.p=2.0",), "not a probability"),
        ("mdlm", (), "a target has none; choose method=mdns"),
        ("mdns", ("--config.model.latent=True",), "set objective.context to pseudo"),
        ("mdns", ("--config.model.torus=-1",), "torus is -1"),
        ("mdns", ("--config.objective.warmup.updates=5",), "give both, or neither"),
    ],
)  # fmt: skip
def test_runs_that_are_refused(method, flags, words, tmp_path):
    """One line, exit 2, and no folder."""
    name, _, more = method.partition(",")
    argument = ising(name, "side=2" + (f",{more}" if more else ""))
    work = tmp_path / "run"
    refused(tools.call("train", argument, f"--workdir={work}", *SMALL, *flags), words)
    assert not work.exists()


def test_a_loss_that_needs_a_target_has_none_in_a_text(text, tmp_path):
    flags = (*tools.corpus(text), *tools.SIZES)
    run = tools.call("train", tools.recipe("mdns"), f"--workdir={tmp_path / 'run'}", *flags)
    refused(run, "objective wdce learns from a target, but the data are text")


@pytest.mark.parametrize(
    "argv, words",
    [
        (("energy", "--num_samples=1"), "--num_samples=1"),
        (("energy", "--batch_size=-1"), "--batch_size=-1"),
        (("energy", "--seed=-1"), "--seed"),
        (("energy", "--step=77"), "no checkpoint 77"),
        (("energy", "--latent=carry"), "takes no latent"),
        (("energy", "--output=/no/such/folder/e.json"), "/no/such/folder"),
        (("evaluate",), "no validation rows to score; `energy"),
        (("distill", "--steps=2", "--output=grid.json"), "no train rows to score; `energy"),
    ],
)
def test_measurements_that_are_refused(argv, words, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(tools.call(argv[0], f"--workdir={runs('mdns')}", *argv[1:]), words)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_counts_no_rollouts_and_nothing_is_prepared(tmp_path):
    run = tools.call("plan", ising("mdns"), "--what=flops")
    refused(run, "plan counts the operations of runs on data")
    run = tools.call("prepare", ising("mdns"), f"--output={tmp_path / 'shards'}")
    refused(run, "no documents that could be prepared")
    assert not (tmp_path / "shards").exists()


def test_energy_of_a_run_on_data_is_refused(trained):
    run = tools.call("energy", f"--workdir={trained('mdlm')}")
    refused(run, "learned from data (text), not from a target")


def test_a_buffer_that_is_gone_is_told(runs, tmp_path):
    """A checkpoint without its buffer is damaged; a reader of parameters does not need it."""
    workdir = tmp_path / "run"
    shutil.copytree(runs("mdns"), workdir)
    shutil.rmtree(workdir / "checkpoints" / "8" / "aux")
    again = (ising("mdns"), f"--workdir={workdir}", *SMALL, f"{STEPS}9")
    refused(tools.call("train", *again), "none of the checkpoints")
    tools.good("energy", f"--workdir={workdir}", "--num_samples=32")


def test_the_shipped_target_is_the_documented_one():
    assert Ising() == Ising(side=4, coupling=1.0, field=0.1, beta=0.28)
