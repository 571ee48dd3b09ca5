"""Tiny published networks, made by transformers where it is installed, and a golden folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

V, L = 40, 24
GOLDEN = Path(__file__).parent / "golden_llama"
LLAMA = dict(
    vocab_size=V,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=16,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)
ROPE = {
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "linear": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
# name -> (family, fields of its config)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2",
        dict(
            vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    **{
        f"llama_{name}": ("Llama", LLAMA | {"rope_parameters": dict(rope)})
        for name, rope in ROPE.items()
    },
    "llama_tied": ("Llama", LLAMA | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", LLAMA | {"rms_norm_eps": 1e-6}),
    "qwen3": ("Qwen3", LLAMA | {"head_dim": 6, "rms_norm_eps": 1e-6}),
}  # fmt: skip


def make(name: str, folder: Path, dtype: str = "float32", shard: str = "5GB") -> Any:
    """A network of that kind, saved; every parameter is random, norms and biases too."""
    import torch
    import transformers

    family, fields = KINDS[name]
    config = getattr(transformers, f"{family}Config")(**json.loads(json.dumps(fields)))
    config._attn_implementation = "eager"
    tail = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    torch.manual_seed(0)
    model = getattr(transformers, family + tail)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    return model


def ids() -> np.ndarray:
    """Two rows, longer than the pretraining of the scaled ones."""
    return np.random.default_rng(0).integers(0, V, (2, L)).astype(np.int32)


def logits(model: Any, tokens: np.ndarray, causal: bool) -> np.ndarray:
    """Of transformers; without a causal mask by a 4-D one of zeros."""
    import torch

    given = torch.from_numpy(tokens.astype(np.int64))
    rows, length = tokens.shape
    mask = None if causal else torch.zeros(rows, 1, length, length)
    with torch.no_grad():
        return model(input_ids=given, attention_mask=mask).logits.float().numpy()
