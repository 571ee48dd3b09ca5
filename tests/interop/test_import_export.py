"""Import and export as a user types them; what was imported samples and evaluates."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ldd_jax
from ldd_jax.data import IdTokenizer
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
    assert "note: sigma was fed as recorded" in result.out and "logits_notime" in result.out


def test_outputs_of_a_module_that_zeroes_sigma(tmp_path):
    """MDLM's module feeds zeros whatever it is given: such outputs stand under logits_notime."""
    file, w = checkpoint(tmp_path, loop=False)
    x, sigma = np.arange(14).reshape(2, 7) % 29, np.array([0.3, 2.0], np.float32)
    logits, _ = forward(w, x, np.zeros(2), None, 2)
    for name, far in (("logits_notime", False), ("logits", True)):
        np.savez(tmp_path / f"{name}.npz", **{"x": x, "sigma": sigma, name: logits})
        flags = ("--method=mdlm", f"--workdir={tmp_path / name}", "--length=12")
        recording = f"--recording={tmp_path / name}.npz"
        result = tools.good("import", file, *flags, recording)
        worst = json.loads((tmp_path / name / "import.json").read_text())["recorded"]["worst"]
        assert (worst > 1e-3) == far and ("note:" in result.out) == far


def test_export_gives_the_same_bytes(imported, tmp_path):
    workdir, w, _ = imported
    tools.good("export", f"--workdir={workdir}", f"--output={tmp_path / 'out'}")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert set(back) == set(w)
    assert all(back[n].tobytes() == w[n].tobytes() and back[n].shape == w[n].shape for n in w)
    assert (
        "imported from | `reference.safetensors`, SHA-256 `"
        in (tmp_path / "out" / "README.md").read_text()
    )
    again = tools.good(
        *("import", tmp_path / "out", "--method=lddm_m", f"--workdir={tmp_path / 'again'}")
    )
    assert f"{len(w)} of {len(w)}" in again.out


@pytest.mark.slow
def test_export_under_own_names_is_whole(imported, tmp_path):
    workdir, _, _ = imported
    tools.good("export", f"--workdir={workdir}", f"--output={tmp_path / 'own'}", "--names=own")
    tools.good("import", tmp_path / "own", f"--workdir={tmp_path / 'back'}")
    kept = [(d / "config.json").read_text() for d in (workdir, tmp_path / "back")]
    assert kept[0] == kept[1]
    texts = [sample(d)[0] for d in (workdir, tmp_path / "back")]
    assert texts[0] == texts[1]


def sample(workdir, *flags):
    file = workdir.parent / f"{workdir.name}.jsonl"
    fixed = (f"--workdir={workdir}", f"--output={file}", "--num_samples=2", "--steps=3")
    tools.good("sample", *fixed, *flags)
    records = tools.json_lines(file)
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("names", ["reference", "own"])
def test_an_export_of_ones_own_run_is_read_back(trained, tmp_path, names):
    run, out, back = trained("lddm_m"), tmp_path / "out", tmp_path / "back"
    tools.good("export", f"--workdir={run}", f"--output={out}", f"--names={names}")
    tools.good("import", out, f"--workdir={back}")
    assert (back / "config.json").read_text() == (run / "config.json").read_text()
    assert tokenizer_of(back) == tokenizer_of(run)
    seen = [sample(d) for d in (run, back)]
    assert seen[0] == seen[1]
    assert json.loads((back / "import.json").read_text())["updates"] == 12
    tools.good("export", f"--workdir={back}", f"--output={tmp_path / 'again'}")
    for folder in (out, tmp_path / "again"):
        assert "| updates | 12 |" in (folder / "README.md").read_text()
    tools.good("export", f"--workdir={run}", f"--output={tmp_path / 'first'}")
    one, other = (load_file(tmp_path / d / "model.safetensors") for d in ("first", "again"))
    assert one.keys() == other.keys() and reference.ROTARY in one
    assert all(one[n].tobytes() == other[n].tobytes() for n in one)


@pytest.mark.slow
def test_zeros_behind_the_vocabulary_stay_inside(trained, tmp_path):
    """A run that is given 64 as its multiple has the exports, samples and bound that it had."""
    run, padded = trained("lddm_m"), tmp_path / "padded"
    shutil.copytree(run, padded)
    config = json.loads((padded / "config.json").read_text())
    config["model"]["vocab_multiple"] = 64
    (padded / "config.json").write_text(json.dumps(config))
    rows = lambda workdir: ldd_jax.load(workdir).params["trunk"]["embed"]["table"].shape[0]
    assert rows(run) % 64 and rows(padded) % 64 == 0
    tensors = []
    for names in ("reference", "own"):
        for workdir in (run, padded):
            out = tmp_path / f"{workdir.name}-{names}"
            tools.good("export", f"--workdir={workdir}", f"--output={out}", f"--names={names}")
            tensors.append(load_file(out / "model.safetensors"))
    for one, other in (tensors[:2], tensors[2:]):
        assert one.keys() == other.keys()
        assert all(one[n].tobytes() == other[n].tobytes() for n in one)
    tools.good("import", tmp_path / "padded-own", f"--workdir={tmp_path / 'back'}")
    assert rows(tmp_path / "back") == rows(padded)
    assert sample(run) == sample(padded) == sample(tmp_path / "back")
    bounds = []
    for workdir in (run, padded):
        tools.good("evaluate", f"--workdir={workdir}", f"--output={tmp_path / 'bound.jsonl'}")
        bounds.append(tools.json_lines(tmp_path / "bound.jsonl")[-1]["nelbo_nats_per_token"])
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-6)


@pytest.mark.slow
def test_what_an_export_says_is_not_overruled(trained, tmp_path):
    run, out = trained("lddm_m"), tmp_path / "out"
    tools.good("export", f"--workdir={run}", f"--output={out}")
    for flag, text in (
        ("--method=udlm", "method 'udlm': the config in"),
        ("--heads=4", "--heads: the config in"),
        ("--mask=3", "--mask: the config in"),
    ):
        result = tools.call("import", out, f"--workdir={tmp_path / 'back'}", flag)
        assert result.status == 2 and text in result.err and not (tmp_path / "back").exists()
    # The file alone, a method that fits and another length are all right.
    file = out / "model.safetensors"
    tools.good(*("import", file, f"--workdir={tmp_path / 'back'}", "--length=8", "--method=lddm_m"))
    config, own = (json.loads((d / "config.json").read_text()) for d in (tmp_path / "back", run))
    assert config["data"].pop("length") == 8 and own["data"].pop("length") == 16
    assert config == own


def tokenizer_of(workdir):
    return {p.name: p.read_bytes() for p in (workdir / "tokenizer").iterdir()}


@pytest.mark.slow
def test_classes_of_an_import_are_numbers(tmp_path):
    rng = np.random.default_rng(5)
    table = rng.normal(0, 3, (5, 8)).astype(np.float32)
    change = lambda w: w.update({"cond_map.embedding_table.weight": table})
    file, _ = checkpoint(tmp_path, loop=False, change=change)
    workdir = tmp_path / "run"
    tools.good("import", file, "--method=mdlm", f"--workdir={workdir}", "--length=9")
    assert sample(workdir, "--label=2") != sample(workdir, "--label=0")
    sample(workdir, "--label=0", "--guidance=2")
    assert tools.json_lines(tmp_path / "run.jsonl")[0]["label"] == "0"
    result = tools.call("sample", f"--workdir={workdir}", "--label=4")
    assert result.status == 2 and "--label=4: no such class; they are numbers, 0 to 3" in result.err
    model = ldd_jax.load(workdir)
    assert model.sample(2, num_inference_steps=3, label=2) == sample(workdir, "--label=2")[1]


@pytest.mark.parametrize(
    "states, ids, config, method",
    [
        (29, 28, None, "sedd"),
        (29, 29, None, "sedd_uniform"),
        (29, 0, {"graph": {"type": "uniform"}, "model": {"length": 7}}, "sedd_uniform"),
        (29, 0, None, "29 states are neither 50257 ids nor one more; give --method"),
    ],
)
def test_what_sedd_saves(tmp_path, states, ids, config, method):
    torch = pytest.importorskip("torch")
    _, w = checkpoint(tmp_path, loop=False, states=states)
    run = tmp_path / "run"
    (run / "checkpoints-meta").mkdir(parents=True)
    file, tensors = (
        run / "checkpoints-meta" / "checkpoint.pth",
        {n: torch.from_numpy(a) for n, a in w.items()},
    )
    shadow = [a for n, a in tensors.items() if "inv_freq" not in n]
    averages = {"decay": 0.9999, "num_updates": 4, "shadow_params": shadow}
    torch.save({"optimizer": {}, "model": tensors, "ema": averages, "step": 4}, file)
    if config:
        (run / ".hydra").mkdir()
        (run / ".hydra" / "config.yaml").write_text(json.dumps(config))
    flags = ()
    if ids:
        IdTokenizer(ids).save(tmp_path / "ids")
        flags = (f"--tokenizer={tmp_path / 'ids'}",)
    result = tools.call("import", file, f"--workdir={tmp_path / 'out'}", *flags)
    if " " in method:
        assert result.status == 2 and method in result.err
        return
    assert result.status == 0, result
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["recipe"] == f"import,method={method}"
    assert found["data"]["length"] == (7 if config else 1024)


def test_facts_of_a_folder_reach_the_config(tmp_path):
    _, w = checkpoint(tmp_path, loop=False)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(w, folder / "model.safetensors")
    said = {
        "algo": {"name": "d3pm", "T": 50, "time_conditioning": True},
        "noise": {"type": "cosine", "eps": 1e-4},
    }
    (folder / "config.json").write_text(json.dumps(said))
    tools.good("import", folder, f"--workdir={tmp_path / 'run'}", "--length=6")
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    assert found["recipe"] == "import,method=d3pm" and found["model"]["time_conditioning"]
    assert found["objective"]["times"] == {"name": "grid", "steps": 50}
    assert found["process"]["schedule"] == {"name": "cosine_duo", "eps": 1e-4}


def drop(name):
    return lambda w: w.pop(name)


REFUSED = [
    (drop("blocks.0.attn_out.weight"), (), "missing ['blocks.0.attn_out.weight']"),
    (lambda w: w.update(teacher=np.zeros(2)), (), "surplus ['teacher']"),
    (lambda w: w.update({"layer_norm.bias": np.zeros(3)}), (), "(3,), expected (16,)"),
    (None, ("--method=mdlm",), "does not fit a bidirectional network with a latent"),
    (None, ("--method=lddm",), "did you mean 'lddm_"),
    (None, None, "give --method; allowed: lddm_block, lddm_g"),
    (None, ("--method=",), "--method is missing its value"),
    (None, ("--heads=4",), "4 heads given, but rotary_emb.inv_freq tells 2"),
    (None, ("--mask=29",), "a process of 29 states (mask 29)"),
    (None, ("--tokenizer=/nowhere",), "no tokenizer at /nowhere"),
    (None, ("--recording=/nowhere.npz",), "cannot read the recording"),
    (None, ("--length=-1",), "--length=-1; it must be at least 0"),
]


@pytest.mark.parametrize("change, flags, text", REFUSED, ids=[t[2][:20] for t in REFUSED])
def test_refusals_leave_nothing(tmp_path, change, flags, text):
    file, _ = checkpoint(tmp_path, change=change)
    given = () if flags is None else ("--method=lddm_m", *flags)  # the last one counts
    result = tools.call("import", file, f"--workdir={tmp_path / 'run'}", *given)
    assert result.status == 2 and text in result.err, result
    assert len(result.err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["reference.safetensors"]


@pytest.mark.parametrize(
    "flag, text",
    [
        ("--method=lddm", "did you mean 'lddm_"),
        ("--schedule=log_linaer", "did you mean 'log_linear'"),
        ("--tokenizer=/nowhere", "no tokenizer at /nowhere"),
        ("--recording=/nowhere.npz", "cannot read the recording"),
    ],
)
def test_flags_are_refused_before_the_checkpoint_is_read(flag, text, tmp_path, monkeypatch):
    def read(path):
        raise AssertionError("the checkpoint was read before the refusal")

    monkeypatch.setattr("ldd_jax.interop.sources.read", read)
    result = tools.call("import", "any.safetensors", f"--workdir={tmp_path / 'run'}", flag)
    assert result.status == 2 and text in result.err, result


def test_places_in_use_are_refused(imported, tmp_path):
    workdir, _, _ = imported
    file, _ = checkpoint(tmp_path)
    result = tools.call("import", file, "--method=lddm_m", f"--workdir={workdir}")
    assert result.status == 2 and "is not an empty folder" in result.err
    result = tools.call("export", f"--workdir={workdir}", f"--output={workdir}")
    assert result.status == 2 and "is not an empty folder" in result.err


@pytest.mark.slow
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
