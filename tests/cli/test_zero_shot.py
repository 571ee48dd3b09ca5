"""`evaluate --zero_shot` end to end."""

from __future__ import annotations

import json

import pytest

from tests.cli import tools


@pytest.fixture
def manifest(tmp_path):
    lines = tools.sentences(40, seed=5)
    (tmp_path / "plain.txt").write_text(lines)
    (tmp_path / "spaced.txt").write_text(lines.replace(".", " @.@ "))
    same = dict(packing="wrap", bos=False, eos=True)
    sets = [
        dict(name="plain", path="plain.txt", detokenizer="none", **same),
        dict(name="undone", path="spaced.txt", detokenizer="wikitext", **same),
        dict(name="spaced", path="spaced.txt", detokenizer="none", **same),
        dict(name="rows", path="plain.txt", detokenizer="none", **same | {"packing": "document"}),
    ]
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"datasets": sets}))
    return path


@pytest.mark.slow
def test_a_row_for_each_data_set(trained, manifest, tmp_path):
    output, given = tmp_path / "o.jsonl", f"--workdir={trained('lddm_m')}"
    run = tools.good("evaluate", given, f"--zero_shot={manifest}", f"--output={output}")
    told = {r["dataset"]: r for r in tools.json_lines(output)}
    assert list(told) == ["plain", "undone", "spaced", "rows"]
    nats = {k: r["nelbo_nats_per_token"] for k, r in told.items()}
    # Undoing the spaces gives the plain text back, and so its number; leaving them does not.
    assert nats["plain"] == nats["undone"] != nats["spaced"]
    assert told["plain"]["texts"] == told["undone"]["texts"]
    assert len({r["data_fingerprint"] for r in told.values()}) == 4
    assert told["rows"]["documents"] == 40 and told["rows"]["dropped_tokens"] == 0
    assert all(r["passes"] == 2 and r["nelbo_se"] > 0 and r["step"] == 12 for r in told.values())
    assert "detokenizer wikitext 2, packing wrap, eos" in run.out
    tools.good("evaluate", given, f"--data={tmp_path / 'plain.txt'}", "--data_split=line",
               "--split=validation", f"--output={output}")  # fmt: skip
    assert "dataset" not in tools.json_lines(output)[0]


def test_refusals(trained, manifest, tmp_path):
    given = ("evaluate", f"--workdir={trained('lddm_m')}", f"--zero_shot={manifest}")
    found = json.loads(manifest.read_text())
    found["datasets"][3]["sha256"] = "ff"
    output = tmp_path / "o.jsonl"
    run = tools.call(*given, f"--data={tmp_path / 'plain.txt'}")
    assert run.status == 2 and "--data_split and --data_field do not apply" in run.err
    manifest.write_text(json.dumps(found))
    run = tools.call(*given, f"--output={output}")
    assert run.status == 2 and "the manifest says ff" in run.err and not output.exists()
    assert len(run.err.splitlines()) == 1
