"""The parameter names shared by LDDM, MDLM, Duo, SEDD and discrete-diffusion-guidance.

A torch Linear weight is [out, in], ours is [in, out]; their blocks are numbered, ours stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ldd_jax.core.checks import UserError

Path = tuple[str, ...]

# ours -> (theirs, transposed)
_PLAIN: dict[Path, tuple[str, bool]] = {
    ("trunk", "embed", "table"): ("vocab_embed.embedding", False),
    ("trunk", "time", "in", "kernel"): ("sigma_map.mlp.0.weight", True),
    ("trunk", "time", "in", "bias"): ("sigma_map.mlp.0.bias", False),
    ("trunk", "time", "out", "kernel"): ("sigma_map.mlp.2.weight", True),
    ("trunk", "time", "out", "bias"): ("sigma_map.mlp.2.bias", False),
    ("trunk", "classes", "embedding"): ("cond_map.embedding_table.weight", False),
    ("trunk", "final_norm", "norm", "scale"): ("output_layer.norm_final.weight", False),
    ("head", "kernel"): ("output_layer.linear.weight", True),
    ("head", "bias"): ("output_layer.linear.bias", False),
    ("trunk", "final_adaln", "kernel"): ("output_layer.adaLN_modulation.weight", True),
    ("trunk", "final_adaln", "bias"): ("output_layer.adaLN_modulation.bias", False),
    ("trunk", "latent_norm", "norm", "scale"): ("layer_norm.weight", False),
    ("trunk", "latent_norm", "norm", "bias"): ("layer_norm.bias", False),
}
_BLOCK: dict[Path, tuple[str, bool]] = {
    ("norm1", "norm", "scale"): ("norm1.weight", False),
    ("qkv", "kernel"): ("attn_qkv.weight", True),
    ("out", "kernel"): ("attn_out.weight", True),
    ("norm2", "norm", "scale"): ("norm2.weight", False),
    ("mlp_in", "kernel"): ("mlp.0.weight", True),
    ("mlp_in", "bias"): ("mlp.0.bias", False),
    ("mlp_out", "kernel"): ("mlp.2.weight", True),
    ("mlp_out", "bias"): ("mlp.2.bias", False),
    ("adaln", "kernel"): ("adaLN_modulation.weight", True),
    ("adaln", "bias"): ("adaLN_modulation.bias", False),
}
BUFFERS = ("rotary_emb.inv_freq",)


def _leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    if not isinstance(tree, Mapping):
        return {path: tree}
    out: dict[Path, Any] = {}
    for key, value in tree.items():
        out |= _leaves(value, (*path, key))
    return out


def _nest(leaves: Mapping[Path, Any]) -> dict:
    root: dict = {}
    for path, value in leaves.items():
        node = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return root


def from_reference(tensors: Mapping[str, np.ndarray], shapes: Any) -> Any:
    """Parameters in our layout from tensors under the reference's names.

    Args:
      tensors: name -> array; every one must be used (buffers excepted).
      shapes: our parameter tree (arrays or shape structs) that the result must match.

    Raises:
      UserError: listing missing, surplus and misshapen names.
    """
    used: set[str] = set()
    missing: list[str] = []

    def take(name: str, transposed: bool) -> np.ndarray | None:
        if name not in tensors:
            missing.append(name)
            return None
        used.add(name)
        value = np.asarray(tensors[name])
        return value.T if transposed else value

    out: dict[Path, Any] = {}
    wrong: list[str] = []
    for path, like in _leaves(shapes).items():
        if path[:2] == ("trunk", "blocks"):
            name, transposed = _BLOCK[path[2:]]
            parts = [take(f"blocks.{i}.{name}", transposed) for i in range(like.shape[0])]
            value = None if any(p is None for p in parts) else np.stack(parts)  # type: ignore[arg-type]
            name = f"blocks.*.{name}"
        else:
            name, transposed = _PLAIN[path]
            value = take(name, transposed)
        if value is not None and value.shape != tuple(like.shape):
            wrong.append(f"{name} is {value.shape}, expected {tuple(like.shape)}")
        out[path] = value
    surplus = sorted(set(tensors) - used - set(BUFFERS))
    if missing or surplus or wrong:
        raise UserError(
            f"checkpoint does not fit this network: missing {missing or 'none'}; "
            f"surplus {surplus or 'none'}; misshapen {wrong or 'none'}"
        )
    return _nest(out)


def to_reference(params: Any) -> dict[str, np.ndarray]:
    """Tensors under the reference's names from our parameters; inverse of `from_reference`."""
    out: dict[str, np.ndarray] = {}
    for path, value in _leaves(params).items():
        value = np.asarray(value)
        if path[:2] == ("trunk", "blocks"):
            name, transposed = _BLOCK[path[2:]]
            for i, part in enumerate(value):
                out[f"blocks.{i}.{name}"] = np.ascontiguousarray(part.T if transposed else part)
        else:
            name, transposed = _PLAIN[path]
            out[name] = np.ascontiguousarray(value.T if transposed else value)
    return out
