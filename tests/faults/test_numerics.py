"""NaN and Inf: skipped, counted, kept for replay, and too many of them end the run."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from ldd_jax.runs import replay
from ldd_jax.training import state as states
from ldd_jax.training.step import Update
from ldd_jax.training.watch import Interval, Watch
from tests.cli import tools
from tests.faults.poison import poisoned
from tests.training.common import BATCH, LENGTH, experiment

RARE = "Q"


def step_of(built, token, what, monkeypatch):
    monkeypatch.setattr(Update, "_loss", poisoned(Update._loss, token, what))
    return jax.jit(built.update)


def arrays(token):
    z0 = np.ones((BATCH, LENGTH), np.int32)
    z0[3, 5] = token
    return {
        "z0": z0,
        "keep": np.zeros(z0.shape, bool),
        "weight": np.ones(z0.shape, np.float32),
        "index": np.arange(BATCH, dtype=np.int32),
    }


@pytest.mark.slow
@pytest.mark.parametrize("what", ["nan", "inf", "gradient"])
def test_a_bad_update_moves_nothing_but_the_step(what, monkeypatch):
    built = experiment("lddm_m", optim__warmup_steps=4)
    first = states.initial(built.model, built.update.optimizer, built.mesh, built.key(0))
    step = step_of(built, 7, what, monkeypatch)
    good, metrics = step(first, arrays(token=2), built.key(1))
    assert bool(metrics["finite"]) and int(good.step) == 1
    bad, metrics = step(good, arrays(token=7), built.key(1))
    assert not bool(metrics["finite"]) and int(bad.step) == 2
    for name in ("params", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(bad, name), getattr(good, name))
    # Of the optimizer's state, what goes by the step's number moves on; the moments stay.
    adam = lambda state: optax.tree.get(state.opt_state, "ScaleByAdamState")
    jax.tree.map(np.testing.assert_array_equal, adam(bad), adam(good))
    ones = jax.tree.map(np.ones_like, good.params)
    change = lambda state: built.update.optimizer.update(ones, state.opt_state, good.params)[0]
    for a, b in zip(*(jax.tree.leaves(change(state)) for state in (good, bad))):
        np.testing.assert_allclose(b, 1.5 * a, rtol=1e-5)  # of 4 steps up: the third, the second
    moved, _ = step(good, arrays(token=2), built.key(1))
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (moved.params, good.params))))


def row(loss, finite=True):
    return {"loss": loss, "grad_norm": 1.0, "scored": 0.5, "finite": finite}


def test_skipped_updates_are_counted_and_in_no_mean():
    interval = Interval()
    for values in (row(2.0), row(float("nan"), False), row(4.0)):
        interval.add(values)
    assert interval.means() == {
        "train_loss": 3.0,
        "scored_share": 0.5,
        "grad_norm": 1.0,
        "skipped": 1,
    }
    empty = Interval()
    empty.add(row(float("inf"), False))
    assert np.isnan(empty.means()["train_loss"]) and empty.means()["skipped"] == 1


def test_spikes_are_far_above_the_recent_mean():
    draw, watch = np.random.default_rng(0), Watch()
    heights = [watch.add(row(float(x))) for x in draw.normal(3, 0.1, 500)]
    assert not any(heights)
    assert watch.mean == pytest.approx(3, abs=0.05)
    assert np.sqrt(watch.variance) == pytest.approx(0.1, rel=0.3)
    assert watch.add(row(2.0)) == 0  # a fall is none
    assert watch.add(row(6.0)) > 6
    assert watch.add(row(float("nan"), False)) == 0 and (watch.skipped, watch.in_row) == (1, 1)
    watch.add(row(3.0))
    assert (watch.skipped, watch.in_row) == (1, 0)


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """Sentences of which a few hold a letter that no other has; its id."""
    path = tmp_path_factory.mktemp("rare") / "text.txt"
    lines = tools.sentences(400).splitlines()
    lines[200] = lines[200][:20] + RARE + lines[200][20:]
    path.write_text("\n".join(lines) + "\n")
    return path


def flags(path, workdir, *more):
    given = (tools.recipe("lddm_m"), f"--workdir={workdir}", *tools.corpus(path))
    return (*given, *tools.SIZES, *tools.OPTIM, "--config.training.log_every=1", *more)


def poisoned_run(path, workdir, what, monkeypatch, *more):
    """A run whose loss is bad for rows with the rare letter; the letter's id, the last by count."""
    token = len(set(path.read_text()) - {"\n"}) - 1
    monkeypatch.setattr(Update, "_loss", poisoned(Update._loss, token, what))
    return tools.call("train", *flags(path, workdir, *more))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["nan", "gradient"])
def test_a_bad_batch_is_skipped_kept_and_replayed(what, rare, tmp_path, monkeypatch):
    """One row of the corpus is bad: it costs one update an epoch, and the replay finds it."""
    workdir = tmp_path / "run"
    steps = ("--config.training.num_steps=130", "--config.training.checkpoint_every=20")
    out = poisoned_run(rare, workdir, what, monkeypatch, *steps)
    assert out.status == 0, out
    lines = [r for r in tools.json_lines(workdir / "metrics.jsonl") if "train_loss" in r]
    bad = [r["step"] for r in lines if "skipped" in r]
    assert bad and all(r["train_loss"] is None for r in lines if "skipped" in r)
    assert sum(r["train_loss"] is None for r in lines) == len(bad)
    kept = sorted((workdir / replay.FOLDER).iterdir())
    assert [p.name for p in kept] == [f"step-{s}" for s in bad]
    assert f"step {bad[0]}: " in out.out and "the update is skipped (1 in a row)" in out.out

    found = replay.replay(workdir, bad[0])
    assert not found["finite"] and not found["parameters"]
    stored = replay.read_batch(kept[0])["z0"]
    token = len(set(rare.read_text()) - {"\n"}) - 1
    held = np.flatnonzero((stored == token).any(-1)).tolist()
    if what == "nan":
        assert np.isnan(found["loss"]) and found["rows"] == held
    else:
        assert np.isfinite(found["loss"]) and len(found["gradients"]) == 1
    shown = tools.good("replay", f"--workdir={workdir}", f"--step={bad[0]}").out
    assert "not finite, as in the run" in shown

    monkeypatch.undo()  # without the poison the same update is sound: the replay can tell
    clean = replay.replay(workdir, bad[0])
    assert clean["finite"] and not clean["rows"]
    missing = tools.call("replay", f"--workdir={workdir}", "--step=3")
    assert missing.status == 2 and f"allowed: {bad[0]}" in missing.err


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run(rare, tmp_path):
    """A learning rate that no network survives, and nothing else out of the ordinary."""
    workdir = tmp_path / "run"
    more = ("--config.optim.lr=1e38", "--config.optim.warmup_steps=0")
    steps = ("--config.training.num_steps=40", "--config.training.max_skipped=4")
    out = tools.call("train", *flags(rare, workdir, *more, *steps))
    assert out.status == 1 and "Traceback" not in out.err, out
    said = out.err.strip().splitlines()
    assert len(said) == 1 and "4 updates in a row were skipped" in said[0]
    assert "replay --workdir=... --step=" in said[0]
    first = int(said[0].split("--step=")[1].split("`")[0])
    found = replay.replay(workdir, first)
    assert not found["finite"]
    assert not (workdir / "summary.json").exists()
    assert tools.json_lines(workdir / "metrics.jsonl")
