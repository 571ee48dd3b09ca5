"""Ablations: what is finished is shown, what is missing is named or trained, differences pair."""

import importlib
import json
import subprocess
import sys

import pytest

from tests.training.processes import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("ablations")


def cell(folder, name, seed, nats):
    workdir = folder / f"{name}-{seed}"
    workdir.mkdir()
    (workdir / "summary.json").write_text("{}")
    lines = [{"passes": k, "nelbo_nats_per_token": v} for k, v in zip((1, 2, 3), nats)]
    (workdir / "passes.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def folder(tmp_path):
    for seed, shift in ((0, 0.0), (1, 0.5)):
        cell(tmp_path, "lddm_m", seed, (2.1 + shift, 2.0 + shift, 2.05 + shift))
        cell(tmp_path, "mdlm", seed, (2.2 + shift,))
    cell(tmp_path, "lddm_m_width24", 0, (2.2, 2.1, 2.3))
    cell(tmp_path, "lddm_m_width24", 1, (2.7, 2.62, 2.7))
    cell(tmp_path, "lddm_m_p1.0", 1, (2.9, 2.4, 2.5))
    return tmp_path


def test_what_is_finished_is_shown(script, folder, monkeypatch, capsys):
    given = ["", f"--folder={folder}", "--seeds=0,1", "--only_found"]
    monkeypatch.setattr(sys, "argv", [*given, f"--output={folder / 'plot.png'}"])
    script.main()
    out = capsys.readouterr().out
    assert (
        "missing: lddm_m_p0.5-0, lddm_m_p1.0-0," in out
        and "width24-0" not in out.split("missing")[1]
    )
    rows = {tuple(r.split(" | ")[:2]): r.split(" | ")[2:] for r in out.splitlines() if " | " in r}
    width = rows["| channels of the latent, of 96", "24"]
    # Paired: 0.10 and 0.12, though the seeds are 0.5 apart.
    assert width[:1] + width[3:5] == ["2", "2.3600 +- 0.2600", "0.1100 +- 0.0100"]
    assert width[2] == "0.1000 +- 0.0000"
    one = rows["| probability p of a pseudo-context", "1"]
    assert one[0] == "1" and one[4] == "-0.1000 +- ?"  # seed 1 alone, beside the base's seed 1
    assert rows["| without a latent (mdlm)", ""][1].startswith("2.4500 +- 0.2500")
    assert (folder / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(folder.glob("*.partial*"))


def test_what_is_missing_is_trained(script, folder, monkeypatch, capsys):
    asked = []

    def run(argv, **_):
        asked.append(argv[3:])
        cell(folder, "lddm_m_grad", 1, (2.0, 2.25, 2.0))

    monkeypatch.setattr(subprocess, "run", run)
    given = ["", f"--folder={folder}", "--seeds=1", f"--output={folder / 'plot.png'}"]
    monkeypatch.setattr(sys, "argv", [*given, "--", "--config.training.num_steps=3"])
    monkeypatch.setattr(script, "FLAGS", {k: script.FLAGS[k] for k in ("lddm_m", "lddm_m_grad")})
    script.main()
    assert asked == [
        ["train", "--config=configs/quickstart.py:method=lddm_m", "--config.seed=1",
         f"--workdir={folder / 'lddm_m_grad-1'}", "--config.objective.context.gradient=True",
         "--config.training.num_steps=3"],
    ]  # fmt: skip
    assert "lddm_m_grad-1: 2.0000, 2.2500, 2.0000 nats" in capsys.readouterr().out


def test_an_empty_folder(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", f"--folder={tmp_path}", "--only_found"])
    with pytest.raises(SystemExit, match="no finished cell"):
        script.main()
