"""A workdir's decoder as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ldd_jax.config.experiment import Experiment
from ldd_jax.core import reading
from ldd_jax.core.checks import UserError, parse_json, require
from ldd_jax.denoisers import published
from ldd_jax.denoisers.decoder import Decoder
from ldd_jax.denoisers.described import CODED
from ldd_jax.denoisers.linears import merged

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
LATENT = "latent.safetensors"


def layout(experiment: Experiment, host: Any, record: dict[str, Any]) -> tuple[dict, dict, dict]:
    """config.json, the tensors under its names, and what only this library knows.

    Args:
      experiment: of the workdir.
      host: its parameters, on the host.
      record: import.json, or nothing for a run of our own.

    Raises:
      UserError: for a network that transformers does not have.
    """
    model: Any = experiment.model
    require(
        isinstance(model, Decoder),
        f"transformers has no network {experiment.config.model.name!r}; give --names=own or "
        "--names=reference",
    )
    require(
        not model.time_conditioning,
        "transformers has no network that is told the time; give --names=own",
    )
    causal = experiment.process.schedule is None  # the mask that was appended is never read
    rows = record.get("rows", experiment.tokenizer.size) if causal else experiment.tokens.size
    rows = max(rows, experiment.tokenizer.size)
    kind = record.get("kind") or model.family()
    names = {"gpt2": published.GPT2_NAMES, "llada": published.LLADA}.get(kind, published.LLAMA)
    names = names.bare(published.GPT2_PREFIX) if record.get("bare") else names
    dtypes = record.get("dtypes", {})
    tensors = {}
    for name, value in published.written(names, merged(host, model.adapter), rows):
        tensors[name] = value.astype(np.dtype(dtypes.get(name, value.dtype)))
    if names.tied in dtypes and names.tied not in tensors:
        table, _ = names.whole["trunk", "embed", "table"]
        tensors[names.tied] = tensors[table].copy()
    said = {k: v for k, v in record.get("config", {}).items() if k != "auto_map"}
    config = (said or _config(experiment, kind)) | {"vocab_size": rows}
    if "embedding_size" in config:
        config["embedding_size"] = rows
    mask = experiment.tokens.mask
    if mask is not None and mask < rows and not causal:
        config["mask_token_id"] = mask
    own = {
        ".".join(path): np.asarray(value)
        for path, value in published.leaves(host)
        if path[1:2] and path[1] in published.OWN
    }
    return config, tensors, own


def _config(experiment: Experiment, kind: str) -> dict[str, Any]:
    """config.json of a network that was not imported."""
    model: Any = experiment.model
    tokenizer, length = experiment.tokenizer, experiment.config.data.length
    common = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "dtype": model.param_dtype,
    }
    if kind == "gpt2":
        return common | {
            "n_embd": model.width,
            "n_layer": model.depth,
            "n_head": model.heads,
            "n_positions": model.positions,
            "layer_norm_epsilon": model.norm_eps,
            "activation_function": "gelu_new" if model.tanh else "gelu",
        }
    groups, channels = model.key_heads
    return common | {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "num_key_value_heads": groups,
        "head_dim": channels,
        "intermediate_size": model.units,
        "rms_norm_eps": model.norm_eps,
        "tie_word_embeddings": model.tied,
        "hidden_act": "silu",
        **_rope(experiment.config.model, length),
    }


def _rope(model: ConfigDict, length: int) -> dict[str, Any]:
    """Frequencies in the fields of transformers 5, and of 4 beside."""
    scaling, table = model.frequencies, {}
    kind = scaling.name
    if kind != "plain":
        table = {"rope_type": kind, "factor": scaling.factor}
    if kind in ("llama3", "yarn"):
        table["original_max_position_embeddings"] = scaling.original
    if kind == "llama3":
        table |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    if kind == "yarn":
        table |= {"beta_fast": scaling.fast, "beta_slow": scaling.slow}
        table |= {"truncate": scaling.truncate}
        table |= {"attention_factor": scaling.attention} if scaling.attention else {}
    require(
        model.rope_fraction == 1,
        "transformers' Llama turns whole heads (model.rope_fraction is "
        f"{model.rope_fraction}); give --names=own",
    )
    new = {"rope_theta": model.rope_base, "rope_type": "default", **table}
    longest = scaling.original if kind == "dynamic" else length
    old = {"rope_theta": model.rope_base, "rope_scaling": table or None}
    return {"max_position_embeddings": longest, "rope_parameters": new, **old}


def how(experiment: Experiment, record: dict[str, Any]) -> str:
    """How the folder is read and what it means, for the card."""
    model: Any = experiment.model
    if record.get("kind") in CODED:
        lines = [f"Layout of {record['kind']}; transformers needs that model's own code."]
    else:
        lines = ["`AutoModelForCausalLM.from_pretrained(FOLDER)` loads it, with a causal mask."]
    if not model.causal:
        lines.append(
            "The network is a diffusion model and sees both ways: give it a 4-D float attention "
            "mask of zeros, [batch, 1, length, length]."
        )
    if model.shift != "none":
        lines.append("Its logit at i predicts token i + 1.")
    if model.shift == "start":
        begin = model.begin if model.begin >= 0 else experiment.tokens.mask
        lines.append(f"Token {begin} stands before a row.")
    if model.latent:
        lines.append(
            f"The latent's norm is in {LATENT}; without it the folder is the network of one pass."
        )
    return " ".join(lines)


def record_of(workdir: Path, file: str) -> dict[str, Any]:
    """import.json of a workdir, or of the import that its run began with.

    Args:
      workdir: of a run or an import.
      file: its name.

    Raises:
      UserError: for a file that is no JSON object.
    """
    path = workdir / file
    if not path.is_file():
        return {}
    try:
        found = parse_json(reading.read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return found if isinstance(found, dict) and "kind" in found else {}
