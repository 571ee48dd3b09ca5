"""Learned grids beside the usual ones: what is there is not made again, and what the table says."""

import importlib
import json
import subprocess
import sys

import pytest

from tests.training.processes import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("distillation")


def bound(name, nats, above):
    return {"name": name, "nats": nats, "above": above, "above_se": 0.001}


def finish(argv):
    """What a command leaves, as far as the script reads it."""
    said = dict(a[2:].split("=", 1) for a in argv[4:])
    shift = 0.1 * int(said["workdir"][-1])
    if argv[3] == "distill":
        better = 2.0 if said["steps"] == "8" else 1.9
        nats = {"linear": better + 0.1, "cosine": better, "counts": better, "learned": better}
        nats["learned"] -= 0.02 + 0.1 * shift
        made = [bound(n, v + shift, v - better) for n, v in nats.items()]
        with open(said["output"], "w") as stream:
            json.dump({"bounds": made}, stream)
        return
    folder = ROOT.__class__(said["output"])
    folder.mkdir(exist_ok=True)
    grids = [s.partition("grid=")[2] for s in said["samplers"].split(",")]
    cells = []
    for number, grid in enumerate(grids):
        name = grid if "/" not in grid else ROOT.__class__(grid).stem + "-0123abcd"
        for steps in (8, 16):
            value = 3 + shift - 0.1 * number
            cells.append({"sampler": f"ancestral:grid={name}", "steps": steps,
                          "judge_nats": value, "entropy": 2.5})  # fmt: skip
    (folder / "cells.jsonl").write_text("\n".join(map(json.dumps, cells)))


def test_table(script, tmp_path, monkeypatch, capsys):
    for name, latent in (("mdlm-0", False), ("mdlm-1", False), ("lddm_m-0", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model": {"latent": latent}}))
        (tmp_path / name / "summary.json").write_text("{}")
    asked = []

    def run(argv, **_):
        asked.append(argv)
        finish(argv)

    monkeypatch.setattr(subprocess, "run", run)
    output = tmp_path / "grids"
    given = ["", f"--folder={tmp_path}", f"--output={output}", "--seeds=0,1"]
    monkeypatch.setattr(sys, "argv", given)
    script.main()
    out = capsys.readouterr().out
    assert "left out" in out and "lddm_m-1" in out.split("left out")[1]
    off = [a for a in asked if "--latent=off" in a]
    assert len(asked) == 2 * 4 + 4 and all("lddm_m-0" in a[4] for a in off) and len(off) == 2
    rows = {tuple(r.split(" | ")[:3]): r.split(" | ")[3:] for r in out.splitlines() if " | " in r}
    row = rows["| mdlm, none", "8", "learned"]
    # 2.0 less 0.02 and 0.03, one seed 0.1 above the other.
    assert row[0] == "2.0250 +- 0.0450" and row[1].startswith("-0.0250 +- 0.0050: -0.0200 (0.0010)")
    # The third sampler at 8 steps, beside the cosine, which had the better bound.
    assert row[2] == "2.850 +- 0.050 (-0.100 +- 0.000)" and row[3].startswith("2.500")
    assert rows["| mdlm, none", "16", "learned"][2].startswith("2.750 +- 0.050 (-0.200")
    assert rows["| lddm_m, carry", "8", "linear"][0] == "2.1000 +- nan"
    assert rows["| lddm_m, off", "16", "counts"][2:] == ["", " |"]
    script.main()
    assert len([a for a in asked if a[3] == "distill"]) == 2 * 4  # nothing is learned twice


def test_nothing_to_distill(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", f"--folder={tmp_path}", f"--output={tmp_path / 'new'}"])
    with pytest.raises(SystemExit, match="no finished run"):
        script.main()
