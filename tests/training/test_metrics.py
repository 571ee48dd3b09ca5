from __future__ import annotations

import io
import json
import re
import sys

from ldd_jax.training import metrics
from ldd_jax.training.metrics import JsonLines, Progress, finite, read_metrics


def write(path, records, resume=0, again=()):
    writer = JsonLines(path, resume, again)
    for step, values in records:
        writer.write(step, values)
    writer.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [(n, {"train_loss": float(n)}) for n in range(1, 7)])
    found = write(path, [(4, {"train_loss": 0.5})], resume=3)
    assert [(r["step"], r["train_loss"]) for r in found] == [(1, 1), (2, 2), (3, 3), (4, 0.5)]


def test_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [(1, {"train_loss": 1.0}), (2, {"train_loss": 2.0})])
    path.write_text(path.read_text() + '{"step": 3, "tra')
    assert [r["step"] for r in read_metrics(path)] == [1, 2]
    assert [r["step"] for r in write(path, [(3, {"train_loss": 3.0})], resume=2)] == [1, 2, 3]


def test_a_finished_run_repeats_its_last_evaluation_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [(2, {"bound": 5.0}), (4, {"train_loss": 1.0}), (4, {"bound": 3.0})]
    first = write(path, lines)
    again = write(path, [(4, {"bound": 3.0})], resume=4, again=("bound",))
    assert again == first


def test_numbers_without_a_word_in_json():
    assert finite({"a": float("nan"), "b": float("-inf"), "c": 1.5, "d": "x"}) == {
        "a": None,
        "b": None,
        "c": 1.5,
        "d": "x",
    }


def test_progress_tells_the_speed_of_training(capsys):
    """As in the metrics, whatever else the time went to; none before a step was measured."""
    progress = Progress(first=10, total=30, tokens_per_step=8)
    progress.began -= 500
    progress.status("compiling the update", aloud=True)
    progress.status("evaluating")
    progress.write(15, {"train_loss": 2.0})
    progress.write(20, {"train_loss": 1.25, "speed/tokens_per_second": 16.0})
    progress.write(20, {"validation/nelbo_se": 1.0})
    assert capsys.readouterr().out.splitlines() == [
        "compiling the update",
        "step 15/30  loss 2.0000  tokens 120",
        "step 20/30  loss 1.2500  tokens 160  16 tokens/s  ETA 0:05",
    ]


def test_the_bar_names_what_is_done(monkeypatch):
    """On a terminal: what lasts, and the speed and ETA of training beside the steps."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "200")
    shown = lambda: re.split(r"[\r\n]", screen.getvalue())[-1].strip()
    progress = Progress(first=10, total=30, tokens_per_step=8)
    progress.status("compiling the update")
    assert shown().startswith("compiling the update: ")
    progress.step()
    progress.write(11, {"train_loss": 1.25, "speed/tokens_per_second": 16.0})
    assert shown().startswith("loss 1.2500, 88 tokens: ")
    assert shown().endswith("11/30, 16 tokens/s  ETA 0:09")
    progress.status("evaluating 3/70")
    assert shown().startswith("evaluating 3/70: ") and "?" not in shown()
    progress.step()
    progress.bar.refresh()
    assert shown().startswith("loss 1.2500, 88 tokens: ") and "12/30" in shown()
    progress.close()


def test_throughput_counts_training_only(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    speed = metrics.Throughput(tokens=10, operations=600.0, peak=1000.0)
    for moment in (100.0, 102.0, 104.0):  # the first step compiles
        now[0] = moment
        speed.step()
    now[0] = 500.0  # an evaluation
    speed.rest()
    for moment in (501.0, 503.0):
        now[0] = moment
        speed.step()
    assert speed.read() == {
        "speed/tokens_per_second": 5.0,  # 3 steps of 10 tokens in 6 seconds
        "speed/model_flops_per_second": 300.0,
        "speed/mfu": 0.3,
    }
    assert speed.read() == {}
    assert speed.overall == 5.0
    speed = metrics.Throughput(10, 600.0, None)
    assert speed.overall is None
    speed.step(), speed.rest()
    assert speed.read() == {}


def test_numbers_that_are_none_are_not_given_to_tensorboard(tmp_path, caplog):
    writer = metrics.TensorBoard(tmp_path, 0)
    writer.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0, "d": "text"})
    writer.close()
    assert not caplog.records and any(tmp_path.iterdir())
