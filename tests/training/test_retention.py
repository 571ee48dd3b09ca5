"""Which checkpoints stay, where a run's time goes, and what W&B is given."""

from __future__ import annotations

import json
import math
import sys
import types

import jax.numpy as jnp
import pytest

from ldd_jax.config.sections import Training
from ldd_jax.core.checks import UserError
from ldd_jax.core.storage import at
from ldd_jax.runs import reporting
from ldd_jax.training import goodput, wandb, watch
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.goodput import Goodput
from ldd_jax.training.retention import Retention
from ldd_jax.training.state import TrainState
from tests.cli import tools


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (dict(newest=2), [5, 6]),
        (dict(newest=0), [1, 2, 3, 4, 5, 6]),
        (dict(newest=1, every=2), [2, 4, 6]),
        (dict(newest=1, best=1), [3, 6]),
        (dict(newest=1, best=2, every=5), [3, 4, 5, 6]),
    ],
)
def test_newest_every_and_best(rule, left):
    retention = Retention(**rule, scores={2: 3.0, 3: 1.0, 4: 1.0, 5: 7.0})
    steps = [1, 2, 3, 4, 5, 6]
    assert [s for s, on in zip(steps, retention.stay(steps)) if on] == left
    assert retention.first == 3


def state(step):
    one = jnp.asarray(step, jnp.int32)
    return TrainState(step=one, params={"w": jnp.ones(2)}, ema=None, opt_state=())


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_the_best_stays_until_a_better_one_comes(place, tmp_path, request):
    """Also over a restart, which knows the scores from the checkpoints."""
    workdir = at(request.getfixturevalue("bucket")) / "run" if place == "bucket" else tmp_path
    rule = dict(keep=1, every=4, best=1)
    scores = {1: 5.0, 2: 1.0, 3: 4.0, 4: 9.0, 5: None, 6: 0.5, 7: 2.0}
    seen = []
    for part in ((1, 2, 3), (4, 5), (6, 7)):
        saver = Checkpoints(workdir, **rule)
        for step in part:
            saver.save(state(step), {"step": step}, scores[step])
        saver.close()
        seen.append(saver.kept.steps())
    assert seen == [[2, 3], [2, 4, 5], [4, 6, 7]]


def test_where_the_time_goes(monkeypatch):
    now = [100.0]
    clock = types.SimpleNamespace(time=lambda: 1e9 + now[0], monotonic=lambda: now[0])
    monkeypatch.setattr(goodput, "time", clock)
    first = Goodput()
    for seconds, then in ((10, "data"), (2, "steps"), (60, "evaluate"), (8, "save"), (5, "steps")):
        now[0] += seconds
        first.turn(then)
    now[0] += 15
    kept = json.loads(json.dumps(first.saved()))
    assert kept["seconds"] == dict(
        start=10.0, data=2.0, steps=75.0, evaluate=8.0, save=5.0, sample=0.0, restart=0.0
    )
    now[0] += 30  # lost: updates after the checkpoint, and waiting
    again = Goodput(kept)
    now[0] += 20
    again.turn("steps")
    now[0] += 50
    found = again.read()
    assert found == {
        "speed/goodput": 125 / 200,
        "speed/share_data": 2 / 200,
        "speed/share_restarts": (30 + 10 + 20) / 200,
    }
    ended = Goodput(kept, ended=True)  # nobody waited
    assert ended.seconds["restart"] == 0
    assert Goodput().read() == {}


STRANGE = [
    3, "x", [], [1], {"seconds": 3, "at": 1.0}, {"seconds": {"steps": "x"}, "at": 1.0},
    {"seconds": {"steps": None}, "at": 1.0}, {"seconds": {"steps": -5.0}, "at": 1.0},
    {"seconds": {"steps": float("nan")}, "at": 1.0}, {"seconds": {"steps": True}, "at": 1.0},
    {"seconds": {}, "at": "noon"}, {"seconds": {}, "at": float("inf")}, {"seconds": {}},
    {"seconds": {"steps": 10**400}, "at": 1.0}, {"at": 1.0}, {"seconds": [1], "at": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_record_of_time_is_none(strange):
    found = Goodput(strange)
    assert found.seconds == dict.fromkeys(goodput.KINDS, 0.0)
    assert found.read().keys() <= {"speed/goodput", "speed/share_data", "speed/share_restarts"}


@pytest.mark.parametrize("strange", [3, "x", [1], {"mean": "x"}, {"other": 1.0}, {"mean": None}])
def test_a_strange_watch_is_none(strange):
    assert watch.kept(watch.Watch, strange) == watch.Watch()
    assert watch.kept(watch.Watch, {"mean": 2.0, "seen": 3}) == watch.Watch(mean=2.0, seen=3)
    assert watch.kept(watch.Interval, None) == watch.Interval()


def test_whether_a_strange_config_had_ended():
    ended = lambda config: reporting._ended({"step": 5, "config": config})
    assert ended({"training": {"num_steps": 5}}) and not ended({"training": {"num_steps": 6}})
    for strange in (None, 3, [], {"training": 3}, {"training": {"num_steps": "5"}}, {}):
        assert not ended(strange)
    assert not reporting._ended({"step": 0})


def test_what_a_config_refuses():
    with pytest.raises(ValueError, match="checkpoint_every 500 is no multiple of eval_every 0"):
        Training(keep_best=1)
    with pytest.raises(ValueError, match="checkpoint_every 5 is no multiple of eval_every 2"):
        Training(keep_best=1, eval_every=2, checkpoint_every=5)
    with pytest.raises(ValueError, match="keep_every is -1"):
        Training(keep_every=-1)


class Library(types.ModuleType):
    """Stands in for W&B's library: remembers what it is given."""

    def __init__(self, fail=""):
        super().__init__("wandb")
        self.begun, self.lines, self.ended, self.fail = [], [], 0, fail

    def init(self, **given):
        if self.fail:
            raise RuntimeError(self.fail)
        self.begun.append(given)
        return self

    def define_metric(self, *names, **how):
        self.lines.append((names, how))

    def log(self, values):
        self.lines.append(values)

    def finish(self):
        self.ended += 1


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setitem(sys.modules, "wandb", found)
    return found


def test_one_run_there_for_a_workdir(library, tmp_path):
    for _ in range(2):
        writer = wandb.WandB("words", tmp_path, "a title", {"seed": 1})
        writer.write(7, {"loss": 1.5, "count": 2, "bad": math.nan, "none": None, "text": "words"})
        writer.close(), writer.close()
    one, other = library.begun
    assert one["id"] == other["id"] == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert one["project"] == "words" and one["resume"] == "allow" and one["config"] == {"seed": 1}
    assert library.lines[-1] == {"update": 7, "loss": 1.5, "count": 2}
    assert (("*",), {"step_metric": "update"}) in library.lines and library.ended == 2
    (tmp_path / "wandb.json").write_text('{"id": "../x"}')
    with pytest.raises(UserError, match="holds no id of a run"):
        wandb.WandB("words", tmp_path, "a title", {})


def test_one_line_where_it_cannot_be(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", Library("no\nnetwork"))
    with pytest.raises(UserError, match=r"training.wandb=words: no network"):
        wandb.WandB("words", tmp_path, "", {})
    monkeypatch.setitem(sys.modules, "wandb", None)
    wandb.check("")
    with pytest.raises(UserError, match=r"pip install 'ldd-jax\[wandb\]'"):
        wandb.check("words")


@pytest.mark.slow
def test_a_run_with_all_of_it(library, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(tools.sentences(200))
    given = (tools.recipe("mdlm"), f"--workdir={tmp_path / 'run'}", *tools.corpus(text))
    given = (*given, *tools.SIZES, *tools.OPTIM, "--config.training.wandb=words")
    rhythm = dict(num_steps=9, eval_every=2, checkpoint_every=2, keep=1, keep_every=4, keep_best=1)
    given = (*given, *(f"--config.training.{n}={v}" for n, v in rhythm.items()))
    tools.good("train", *given)
    lines = tools.json_lines(tmp_path / "run" / "metrics.jsonl")
    name = "validation/nelbo_nats_per_token"
    scores = {r["step"]: r[name] for r in lines if name in r and r["step"] < 9}
    best = min(scores, key=scores.get)
    folder = tmp_path / "run" / "checkpoints"
    left = {int(p.name) for p in folder.iterdir() if p.name.isdigit()}
    assert left == {4, 8, 9, best}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best_step"] == best and 0 < summary["goodput"] < 1
    told = [r for r in lines if "speed/goodput" in r]
    shares = ("speed/goodput", "speed/share_data", "speed/share_restarts")
    assert told and all(0 <= r[n] <= 1 for r in told for n in shares)
    assert [line for line in library.lines if isinstance(line, dict) and "train_loss" in line]
    record = json.loads((folder / "9" / "meta" / "metadata").read_text())
    assert set(record["goodput"]["seconds"]) == set(goodput.KINDS)
