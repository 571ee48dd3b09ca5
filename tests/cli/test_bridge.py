"""Import and export as a user types them; what was imported samples and evaluates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ldd_jax.interop import reference
from tests.cli import tools
from tests.interop.__main__ import write
from tests.parity.numpy_reference import forward, random_weights

SIZES = {"hidden": 16, "blocks": 1, "heads": 2, "cond": 8, "V": 29}


def checkpoint(folder, *, loop=True, states=29, change=None):
    """A file under the reference's names, and the tensors it holds."""
    w = random_weights(np.random.default_rng(3), SIZES | {"V": states}, loop)
    w[reference.ROTARY] = reference.rotary(16, 2)
    if change is not None:
        change(w)
    save_file(w, folder / "reference.safetensors")
    return folder / "reference.safetensors", w


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bridge")
    file, w = checkpoint(folder)
    x, sigma = np.arange(14).reshape(2, 7) % 29, np.array([0.3, 2.0])
    logits, latent = forward(w, x, sigma, None, 2)
    again, _ = forward(w, x, sigma, latent, 2)
    arrays = dict(x=x, sigma=sigma.astype(np.float32), logits_0=logits, logits_1=again)
    np.savez(folder / "outputs.npz", **arrays)
    result = tools.good(
        *("import", file, "--method=lddm_m", f"--workdir={folder / 'run'}", "--length=12"),
        f"--recording={folder / 'outputs.npz'}",
    )
    return folder / "run", w, result


def test_the_record(imported):
    workdir, w, result = imported
    record = json.loads((workdir / "import.json").read_text())
    assert record["round_trip"] == {"identical_tensors": len(w), "tensors": len(w)}
    assert set(record["recorded"]["arrays"]) == {"logits_0", "logits_1"}
    assert 0 < record["recorded"]["worst"] < 2e-5
    assert "come back byte for byte" in result.out and "recorded outputs: 2 arrays" in result.out
    assert str(workdir.parent) not in json.dumps(record)


def test_export_gives_the_same_bytes(imported, tmp_path):
    workdir, w, _ = imported
    tools.good("export", f"--workdir={workdir}", f"--output={tmp_path / 'out'}")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert set(back) == set(w)
    assert all(back[n].tobytes() == w[n].tobytes() and back[n].shape == w[n].shape for n in w)
    assert "imported from | reference.safetensors" in (tmp_path / "out" / "README.md").read_text()
    again = tools.good(
        *("import", tmp_path / "out", "--method=lddm_m", f"--workdir={tmp_path / 'again'}")
    )
    assert f"{len(w)} of {len(w)}" in again.out


def test_export_under_own_names_is_whole(imported, tmp_path):
    workdir, _, _ = imported
    tools.good("export", f"--workdir={workdir}", f"--output={tmp_path / 'own'}", "--names=own")
    tools.good("import", tmp_path / "own", f"--workdir={tmp_path / 'back'}")
    kept = [(d / "config.json").read_text() for d in (workdir, tmp_path / "back")]
    assert kept[0] == kept[1]
    texts = [sample(d)[0] for d in (workdir, tmp_path / "back")]
    assert texts[0] == texts[1]


def sample(workdir, *flags):
    tools.good("sample", f"--workdir={workdir}", "--num_samples=2", "--steps=3", *flags)
    records = tools.json_lines(workdir / "samples.jsonl")
    return [r["tokens"] for r in records], [r["text"] for r in records]


@pytest.mark.slow
def test_samples_fills_and_evaluates(imported, tmp_path):
    workdir, _, _ = imported
    tokens, texts = sample(workdir, "--fill=3 1 4[MASK][MASK] 5")
    assert all(t[:3] == [3, 1, 4] and t[5] == 5 and max(t) < 28 for t in tokens)
    assert texts[0] == " ".join(map(str, tokens[0]))
    rows = tmp_path / "ids.txt"
    draw = np.random.default_rng(0)
    rows.write_text("\n".join(" ".join(map(str, draw.integers(0, 28, 40))) for _ in range(60)))
    flags = (f"--data={rows}", "--data_split=line", f"--output={tmp_path / 'e.jsonl'}")
    tools.good("evaluate", f"--workdir={workdir}", "--passes=1,2", *flags)
    assert [r["passes"] for r in tools.json_lines(tmp_path / "e.jsonl")] == [1, 2]


def test_a_mask_in_the_middle(tmp_path):
    file, _ = checkpoint(tmp_path, loop=False)
    workdir = tmp_path / "run"
    tools.good("import", file, "--method=mdlm", "--mask=7", f"--workdir={workdir}", "--length=9")
    config = json.loads((workdir / "config.json").read_text())
    assert (config["process"]["states"], config["process"]["mask"]) == (29, 7)
    tokens, _ = sample(workdir)
    assert all(7 not in t and len(t) == 9 for t in tokens)


def test_causal_networks_are_known_by_their_tensors(tmp_path):
    def causal(w):
        for name in [n for n in w if "adaLN" in n or "map" in n]:
            del w[name]

    file, _ = checkpoint(tmp_path, loop=False, change=causal)
    tools.good("import", file, f"--workdir={tmp_path / 'run'}", "--length=6")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == "import,method=ar" and config["model"]["causal"]
    sample_flags = ("--num_samples=2", f"--workdir={tmp_path / 'run'}")
    tools.good("sample", *sample_flags)


def drop(name):
    return lambda w: w.pop(name)


REFUSED = [
    (drop("blocks.0.attn_out.weight"), (), "missing ['blocks.0.attn_out.weight']"),
    (lambda w: w.update(teacher=np.zeros(2)), (), "surplus ['teacher']"),
    (lambda w: w.update({"layer_norm.bias": np.zeros(3)}), (), "(3,), expected (16,)"),
    (None, ("--method=mdlm",), "does not fit a bidirectional network with a latent"),
    (None, ("--method=lddm",), "did you mean 'lddm_"),
    (None, ("--method=",), "give --method; allowed: lddm_m, lddm_u"),
    (None, ("--heads=4",), "4 heads given, but rotary_emb.inv_freq tells 2"),
    (None, ("--mask=29",), "a process of 29 states (mask 29)"),
    (None, ("--tokenizer=/nowhere",), "no tokenizer at /nowhere"),
    (None, ("--recording=/nowhere.npz",), "cannot read the recording"),
    (None, ("--length=-1",), "--length=-1; it must be at least 0"),
]


@pytest.mark.parametrize("change, flags, text", REFUSED, ids=[t[2][:20] for t in REFUSED])
def test_refusals_leave_nothing(tmp_path, change, flags, text):
    file, _ = checkpoint(tmp_path, change=change)
    default = () if any("--method" in f for f in flags) else ("--method=lddm_m",)
    result = tools.call("import", file, f"--workdir={tmp_path / 'run'}", *default, *flags)
    assert result.status == 2 and text in result.err, result
    assert len(result.err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["reference.safetensors"]


def test_places_in_use_are_refused(imported, tmp_path):
    workdir, _, _ = imported
    file, _ = checkpoint(tmp_path)
    result = tools.call("import", file, "--method=lddm_m", f"--workdir={workdir}")
    assert result.status == 2 and "not empty" in result.err
    result = tools.call("export", f"--workdir={workdir}", f"--output={workdir}")
    assert result.status == 2 and "not empty" in result.err


def test_score_models_and_their_schedule(tmp_path):
    file, _ = checkpoint(tmp_path, loop=False)
    workdir = tmp_path / "run"
    schedule = "--schedule=geometric:sigma_min=1e-3,sigma_max=9"
    tools.good(*("import", file, "--method=sedd_uniform", schedule, f"--workdir={workdir}"))
    config = json.loads((workdir / "config.json").read_text())
    assert config["process"]["schedule"]["sigma_max"] == 9 and config["model"]["time_conditioning"]
    assert config["data"]["length"] == 1024
    sample(workdir, "--length=8")


@pytest.mark.slow
def test_twelve_layers_and_the_vocabulary_of_gpt2(tmp_path):
    """What docs/interop.md shows, at a smaller width: import, sample, evaluate, export."""
    file, workdir = tmp_path / "random.safetensors", tmp_path / "run"
    w = write(file, width=96, depth=12, vocabulary=50258)
    tools.good("import", file, "--method=lddm_m", f"--workdir={workdir}", "--length=32")
    tokens, _ = sample(workdir)
    assert np.shape(tokens) == (2, 32) and np.max(tokens) < 50257
    rows = tmp_path / "ids.txt"
    draw = np.random.default_rng(0)
    rows.write_text("\n".join(" ".join(map(str, draw.integers(0, 50257, 32))) for _ in range(600)))
    flags = (f"--data={rows}", "--data_split=line", f"--output={tmp_path / 'e.jsonl'}")
    flags += ("--passes=2", "--draws=1", "--estimator=k_form")
    tools.good("evaluate", f"--workdir={workdir}", *flags)
    (found,) = tools.json_lines(tmp_path / "e.jsonl")
    (nats,) = (v for k, v in found.items() if k.endswith("nats_per_token"))
    assert abs(nats - np.log(50257)) < 0.1  # small weights know nothing
    tools.good("export", f"--workdir={workdir}", f"--output={tmp_path / 'out'}")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert back.keys() == w.keys()
    assert all(back[n].tobytes() == a.tobytes() for n, a in w.items())
