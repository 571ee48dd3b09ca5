"""A prepared folder trains as its text does."""

from __future__ import annotations

import pytest

from tests.cli import tools


@pytest.mark.slow
def test_same_curve_from_text_and_from_prepared_folder(trained, train_flags, tmp_path):
    folder, workdir = tmp_path / "prepared", tmp_path / "run"
    run = tools.good("prepare", tools.recipe("lddm_m"), f"--output={folder}", *train_flags)
    assert "train: 3" in run.out and (folder / "manifest.json").is_file()
    path = f"--config.data.path={folder}"
    tools.good("train", tools.recipe("lddm_m"), f"--workdir={workdir}", *train_flags, path)
    assert tools.curve(workdir) == tools.curve(trained("lddm_m"))
    assert len(tools.json_lines(workdir / "metrics.jsonl")) == 7
