"""The parity runner on every golden set within reach, and on one made here."""

import os
from pathlib import Path

import numpy as np
import pytest

import tests.parity.cases  # noqa: F401 (registers the kinds)
from tests.parity.golden import Case, Folder
from tests.parity.numpy_reference import write_set
from tests.parity.runner import main, run_file

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("LDD_GOLDEN", ROOT.parent / "shared" / "golden" / "public"))


REACHED = [GOLDEN] if GOLDEN.is_dir() else []
FILES = [p.name for folder in REACHED for p in sorted(folder.glob("*.npz"))]
QUICK = ("dit_plain.npz", "losses.npz", "posteriors.npz", "schedules.npz")


@pytest.mark.slow
@pytest.mark.parametrize("folder", REACHED, ids=["golden"] * len(REACHED))
def test_golden_set(folder, capsys):
    status = main([str(folder)])
    out = capsys.readouterr().out
    assert status == 0, "\n".join(line for line in out.splitlines() if "FAIL" in line)


@pytest.mark.parametrize("name", [n for n in FILES if n in QUICK])
def test_golden_file(name):
    results = run_file(Folder(GOLDEN), name)
    cases = [r for r in results if isinstance(r, Case)]
    assert len(cases) > 1 and [c for c in cases if not c.ok] == []


@pytest.mark.parametrize("name", [n for n in FILES if n in ("losses.npz", "posteriors.npz")])
def test_sedd_graph_has_its_mask_last_whatever_the_file_says(name):
    """Another mask_index breaks every array of the file's own mask and none of SEDD's graph."""
    folder = Folder(GOLDEN)
    folder.manifest = folder.manifest | {name: folder.manifest[name] | {"mask_index": 3}}
    cases = [r for r in run_file(folder, name) if isinstance(r, Case)]
    graph = [c for c in cases if "sedd_absorb_" in c.name or "graph_absorb_" in c.name]
    assert len(graph) >= 4 and [c.name for c in graph if not c.ok] == []
    assert any(not c.ok for c in cases)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    write_set(folder)
    return folder


def copy(folder, to, name, change):
    """The set with one npz changed."""
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    with np.load(folder / name) as file:
        arrays = dict(file)
    np.savez(to / name, **change(arrays))
    return to


@pytest.mark.slow
def test_made_here(small, capsys):
    assert main([str(small)]) == 0
    out = capsys.readouterr().out
    assert "losses_b/d3pm_other" in out and out.splitlines()[-1].endswith("0 failed, 1 not covered")
    for name in ("logits_3", "latent_0", "logits_0_notime", "block0_out"):
        assert f"dit_lddm_b/{name}" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mdlm_loss", "mdlm_logp", "udlm_loss_f64", "mdlm_loss_reduced"])
def test_a_corrupted_array_fails(small, tmp_path, capsys, name):
    def change(arrays):
        wrong = np.array(arrays[name])
        hit = np.unravel_index(np.argmax(np.abs(wrong) * (np.abs(wrong) < 1e5)), wrong.shape)
        wrong[hit] *= 1.01
        return arrays | {name: wrong}

    assert main([str(copy(small, tmp_path, "losses_b.npz", change))]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    assert [line.split()[0] for line in failed] == [f"losses_b/{name}"]


@pytest.mark.slow
def test_a_nan_fails(small, tmp_path):
    change = lambda a: a | {"mdlm_loss": a["mdlm_loss"] * np.nan}
    assert main([str(copy(small, tmp_path, "losses_b.npz", change))]) == 1


@pytest.mark.slow
def test_an_unknown_array_fails(small, tmp_path, capsys):
    change = lambda a: a | {"surprise": np.zeros(2)}
    assert main([str(copy(small, tmp_path, "losses_b.npz", change))]) == 1
    assert "losses_b/surprise" in capsys.readouterr().out


@pytest.mark.slow
def test_an_absent_array_fails(small, tmp_path, capsys):
    change = lambda a: {n: v for n, v in a.items() if n != "mdlm_loss"}
    assert main([str(copy(small, tmp_path, "losses_b.npz", change))]) == 1
    assert "losses_b/mdlm_loss " in capsys.readouterr().out


@pytest.mark.slow
def test_unknown_kind_and_weights_fail(small, tmp_path, capsys):
    to = copy(small, tmp_path, "losses_b.npz", lambda a: a)
    (to / "mystery.npz").write_bytes((to / "losses_b.npz").read_bytes())
    (to / "stray.safetensors").write_bytes((to / "dit_lddm_b.safetensors").read_bytes())
    assert main([str(to)]) == 1
    out = capsys.readouterr().out
    assert "mystery" in out and "stray.safetensors" in out


def test_unreadable_input_is_two(tmp_path, capsys):
    for path in (tmp_path / "none", tmp_path):
        assert main([str(path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    (tmp_path / "manifest.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
