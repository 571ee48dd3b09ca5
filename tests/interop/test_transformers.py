"""Networks of transformers, imported and exported: the same logits, the same bytes."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ldd_jax.core.types import Cond
from ldd_jax.inference import loading
from ldd_jax.interop import exporting, importing
from ldd_jax.interop.choices import Choices
from tests.interop import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def ours(workdir, tokens, causal):
    """Logits of an import, with or without a causal mask."""
    experiment, params, _ = loading.load_trained(workdir)
    model = dataclasses.replace(experiment.model, causal=causal, shift="none")

    def run(params, tokens):
        denoiser = model.bind(params)
        return denoiser.head(denoiser.trunk(tokens, Cond()).features)

    return np.asarray(jax.jit(run)(params, tokens))[..., : tiny.V]


def back(folder, **more):
    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(folder, attn_implementation="eager", **more).eval()


@pytest.mark.parametrize("name", tiny.KINDS)
def test_the_same_logits_and_the_same_bytes(name, tmp_path):
    made = tiny.make(name, tmp_path / "hf")
    work, tokens = tmp_path / "run", tiny.ids()
    record = importing.load(tmp_path / "hf", work, Choices())
    assert record["round_trip"]["identical_tensors"] == record["tensors"]
    for causal in (True, False):
        expected = tiny.logits(made, tokens, causal)
        np.testing.assert_allclose(ours(work, tokens, causal), expected, rtol=0, atol=2e-5)
    exporting.save(work, tmp_path / "out", names="transformers")
    again = back(tmp_path / "out")
    for old, new in zip(made.state_dict().items(), again.state_dict().items(), strict=True):
        assert old[0] == new[0] and torch.equal(old[1], new[1]), old[0]
    np.testing.assert_array_equal(tiny.logits(again, tokens, True), tiny.logits(made, tokens, True))


def test_shards_and_bfloat16(tmp_path):
    tiny.make("qwen2", tmp_path / "hf", "bfloat16", shard="4KB")
    made = back(tmp_path / "hf", dtype=torch.float32)  # .float() would keep rounded frequencies
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 1
    work = tmp_path / "run"
    importing.load(tmp_path / "hf", work, Choices())
    experiment, params, _ = loading.load_trained(work)
    assert {str(a.dtype) for a in jax.tree.leaves(params)} == {"bfloat16"}
    expected = tiny.logits(made, tiny.ids(), True)
    np.testing.assert_allclose(ours(work, tiny.ids(), True), expected, rtol=0, atol=2e-5)
    exporting.save(work, tmp_path / "out", names="transformers")
    again = back(tmp_path / "out")
    wide = made.state_dict()
    assert again.dtype == torch.bfloat16
    assert all(torch.equal(wide[n], a.float()) for n, a in again.state_dict().items())


def test_a_gpt2_as_it_is_published(tmp_path):
    """Names without the module's, and the buffers of masks."""
    made = tiny.make("gpt2", tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    bare = {n.removeprefix("transformer."): a for n, a in load_file(file).items()}
    save_file(bare | {"h.0.attn.bias": np.tri(32, dtype=np.float32)[None, None]}, file)
    work, tokens = tmp_path / "run", tiny.ids()
    importing.load(tmp_path / "hf", work, Choices())
    expected = tiny.logits(made, tokens, True)
    np.testing.assert_allclose(ours(work, tokens, True), expected, rtol=0, atol=2e-5)
    exporting.save(work, tmp_path / "out", names="transformers")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert {n: a.tobytes() for n, a in out.items()} == {n: a.tobytes() for n, a in bare.items()}
    np.testing.assert_array_equal(tiny.logits(back(tmp_path / "out"), tokens, True), expected)


LLADA = {
    "embed_tokens": "transformer.wte",
    "layers": "transformer.blocks",
    "model.norm": "model.transformer.ln_f",
    "lm_head": "model.transformer.ff_out",
    "input_layernorm": "attn_norm",
    "self_attn.o_proj": "attn_out",
    "self_attn.": "",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}


def llada(name):
    for old, new in LLADA.items():
        name = name.replace(old, new)
    return name


def test_llada_is_a_llama_of_other_names_and_sees_both_ways(tmp_path):
    made = tiny.make("llama_linear", tmp_path / "hf")
    made.config.rope_parameters = {"rope_type": "default", "rope_theta": 500.0}
    made.model.rotary_emb = type(made.model.rotary_emb)(made.config)
    (tmp_path / "llada").mkdir()
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    save_file({llada(n): a for n, a in tensors.items()}, tmp_path / "llada" / "model.safetensors")
    fields = dict(
        model_type="llada", auto_map={"AutoModel": "modeling_llada.LLaDAModelLM"}, d_model=16,
        n_heads=4, n_kv_heads=2, n_layers=2, mlp_hidden_size=24, vocab_size=tiny.V,
        embedding_size=tiny.V, rope_theta=500.0, rms_norm_eps=1e-6, weight_tying=False,
        block_type="llama", activation_type="silu", mask_token_id=5, eos_token_id=2,
        max_sequence_length=64,
    )  # fmt: skip
    (tmp_path / "llada" / "config.json").write_text(json.dumps(fields))
    work = tmp_path / "run"
    importing.load(tmp_path / "llada", work, Choices())
    experiment, params, _ = loading.load_trained(work)
    assert experiment.tokens.mask == 5 and experiment.config.process.name == "masked"
    run = lambda p, z: experiment.model.bind(p).trunk(z, Cond()).features
    features = jax.jit(run)(params, tiny.ids())
    logits = experiment.model.bind(params).head(features)
    expected = tiny.logits(made, tiny.ids(), False)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
    exporting.save(work, tmp_path / "out", names="transformers")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert {n: a.tobytes() for n, a in out.items()} == {
        llada(n): a.tobytes() for n, a in tensors.items()
    }


def test_dream_is_a_qwen2_that_sees_both_ways_and_predicts_the_next(tmp_path):
    made = tiny.make("qwen2", tmp_path / "hf")
    shutil.copytree(tmp_path / "hf", tmp_path / "dream")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config |= {"model_type": "Dream", "auto_map": {"AutoModel": "x.y"}, "mask_token_id": 7}
    (tmp_path / "dream" / "config.json").write_text(json.dumps(config))
    work = tmp_path / "run"
    importing.load(tmp_path / "dream", work, Choices())
    experiment, params, _ = loading.load_trained(work)
    run = lambda p, z: experiment.model.bind(p).trunk(z, Cond()).features
    found = experiment.model.bind(params).head(jax.jit(run)(params, tiny.ids()))
    expected = tiny.logits(made, tiny.ids(), False)
    expected = np.concatenate([expected[:, :1], expected[:, :-1]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_the_golden_folder_is_what_transformers_says():
    model = back(tiny.GOLDEN)
    stored = np.load(tiny.GOLDEN / "logits.npz")
    for name in ("causal", "full"):
        found = tiny.logits(model, stored["ids"], name == "causal")
        # Written on another processor, whose kernels sum in another order.
        np.testing.assert_allclose(found, stored[name], rtol=0, atol=5e-6)
