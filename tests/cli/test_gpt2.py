"""A GPT-2 folder as judge, as a user types it; its numbers against plain numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from ldd_jax.core.checks import UserError
from ldd_jax.evaluation import gpt2
from tests.cli import tools
from tests.parity.numpy_reference import gelu, layer_norm, log_softmax

SIZES = {"vocab_size": 70, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}


def random_tensors(seed=0):
    rng = np.random.default_rng(seed)
    v, p, d, depth = (SIZES[k] for k in ("vocab_size", "n_positions", "n_embd", "n_layer"))
    shapes = {"wte.weight": (v, d), "wpe.weight": (p, d), "ln_f.weight": (d,), "ln_f.bias": (d,)}
    linear = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d)}
    linear["mlp.c_proj"] = (4 * d, d)
    for i in range(depth):
        for name, shape in linear.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (d,), f"h.{i}.{name}.bias": (d,)}
    return {n: rng.normal(0, 0.4, s).astype(np.float32) for n, s in shapes.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights, the end of text, and a tokenizer trained on the tests' sentences."""
    path = tmp_path_factory.mktemp("gpt2")
    tensors = random_tensors() | {"h.0.attn.bias": np.tri(12, dtype=np.float32)}  # their buffer
    save_file(tensors, path / "model.safetensors")
    fields = SIZES | {"model_type": "gpt2", "activation_function": "gelu_new", "eos_token_id": 0}
    (path / "config.json").write_text(json.dumps(fields))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=70, special_tokens=["<|endoftext|>"])
    tokenizer.train_from_iterator(tools.sentences(100).splitlines(), trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def plain(tensors, ids):
    """Log-probabilities [L, V] of one row, one loop after the other."""
    w = {k: v.astype(np.float64) for k, v in tensors.items()}
    linear = lambda x, name: x @ w[f"{name}.weight"] + w[f"{name}.bias"]
    norm = lambda x, name: layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"])
    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    heads = SIZES["n_head"]
    for i in range(SIZES["n_layer"]):
        q, k, v = np.split(linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, -1)
        out = np.zeros_like(x)
        size = x.shape[1] // heads
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            for a in range(len(ids)):
                scores = np.exp(log_softmax(q[a, own] @ k[: a + 1, own].T / np.sqrt(size)))
                out[a, own] = scores @ v[: a + 1, own]
        x = x + linear(out, f"h.{i}.attn.c_proj")
        inner = gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(inner, f"h.{i}.mlp.c_proj")
    return log_softmax(norm(x, "ln_f") @ w["wte.weight"].T)


def test_nats_are_those_of_plain_numpy(folder):
    """A short row, one with two ends, one longer than the context, an empty one."""
    judge = gpt2.load(folder)
    tensors = random_tensors()
    rng = np.random.default_rng(1)
    rows = [rng.integers(1, 70, n) for n in (5, 12, 29, 0)]
    rows[1][[3, 7]] = 0
    nats, tokens = judge.nats(rows)
    for row, found, count in zip(rows, nats, tokens):
        total, n = 0.0, 0
        for at in range(0, len(row), 12):
            piece = row[at : at + 12]
            logp = plain(tensors, piece)
            ends = 0
            for i, token in enumerate(piece):
                ends += token == 0
                if i and (token != 0 or ends == 1):
                    total, n = total - logp[i - 1, token], n + 1
        np.testing.assert_allclose([found, count], [total, n], rtol=1e-5)
    assert list(tokens) == [4, 10, 26, 0]


@pytest.mark.slow
def test_gen_ppl_and_bench(folder, trained, tmp_path, bucket):
    workdir = trained("mdlm")
    tools.good("sample", f"--workdir={workdir}", f"--output={tmp_path / 's.jsonl'}")
    output = tmp_path / "ppl.json"
    run = tools.good("gen-ppl", tmp_path / "s.jsonl", f"--judge={folder}", f"--output={output}")
    (record,) = tools.json_lines(output)
    texts = [r["text"] for r in tools.json_lines(tmp_path / "s.jsonl")]
    judge = gpt2.load(folder)
    nats, tokens = judge.nats([np.asarray(judge.tokenizer.encode(t)) for t in texts])
    assert record["nats"] == pytest.approx(nats.sum() / tokens.sum())
    assert record["tokens"] == tokens.sum() and folder.name in run.out
    (bucket / folder.name).upload(folder)
    tools.good(
        "gen-ppl", tmp_path / "s.jsonl", f"--judge={bucket / folder.name}", f"--output={output}"
    )
    assert tools.json_lines(output) == [record]
    flags = (f"--judge={folder},ngram", "--steps=2", "--num_samples=4", "--samplers=default")
    tools.good("bench", f"--workdir={workdir}", f"--output={tmp_path / 'bench'}", *flags)
    cells = tools.json_lines(tmp_path / "bench" / "cells.jsonl")
    assert set(cells[0]["judges"]) == {folder.name, "ngram"}


def broken(folder, to, **change):
    """The folder with fields of its config changed."""
    fields = json.loads((folder / "config.json").read_text()) | change
    (to / "config.json").write_text(json.dumps(fields))
    for name in ("model.safetensors", "tokenizer.json"):
        (to / name).write_bytes((folder / name).read_bytes())
    return to


@pytest.mark.parametrize(
    "change, why",
    [
        ({"model_type": "llama"}, "llama"),
        ({"activation_function": "relu"}, "relu"),
        ({"n_layer": 3}, "h.2.ln_1.weight"),
        ({"n_embd": 8}, "expected (8,)"),
        ({"n_head": 0}, "n_head"),
        ({"n_positions": "12"}, "n_positions"),
        ({"scale_attn_by_inverse_layer_idx": True}, "attention"),
    ],
)
def test_what_is_no_gpt2_is_refused(folder, tmp_path, change, why):
    (tmp_path / "s.txt").write_text("the old house\n")
    judge = broken(folder, tmp_path, **change)
    run = tools.call("gen-ppl", tmp_path / "s.txt", f"--judge={judge}")
    assert run.status == 2 and why in run.err and len(run.err.splitlines()) == 1, run


def test_a_torn_file_and_a_missing_tokenizer(folder, tmp_path):
    (tmp_path / "s.txt").write_text("the old house\n")
    judge = broken(folder, tmp_path)
    (judge / "tokenizer.json").unlink()
    run = tools.call("gen-ppl", tmp_path / "s.txt", f"--judge={judge}")
    assert run.status == 2 and "no tokenizer" in run.err
    torn = (folder / "model.safetensors").read_bytes()[:1000]
    (judge / "model.safetensors").write_bytes(torn)
    with pytest.raises(UserError, match="damaged safetensors"):
        gpt2.load(judge)
    assert len(load_file(folder / "model.safetensors")) > 10
