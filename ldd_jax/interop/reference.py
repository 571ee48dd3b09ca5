"""The parameter names shared by LDDM, MDLM, Duo, SEDD and discrete-diffusion-guidance.

A torch Linear weight is [out, in], ours is [in, out]; their blocks are numbered, ours stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ldd_jax.core.checks import UserError, require
from ldd_jax.core.types import TokenSpace
from ldd_jax.denoisers import DiT
from ldd_jax.denoisers.linears import QKV, in_files
from ldd_jax.denoisers.rotary import ROTARY_BASE

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
    (QKV, "kernel"): ("attn_qkv.weight", True),
    ("out", "kernel"): ("attn_out.weight", True),
    ("norm2", "norm", "scale"): ("norm2.weight", False),
    ("mlp_in", "kernel"): ("mlp.0.weight", True),
    ("mlp_in", "bias"): ("mlp.0.bias", False),
    ("mlp_out", "kernel"): ("mlp.2.weight", True),
    ("mlp_out", "bias"): ("mlp.2.bias", False),
    ("adaln", "kernel"): ("adaLN_modulation.weight", True),
    ("adaln", "bias"): ("adaLN_modulation.bias", False),
}
ROTARY = "rotary_emb.inv_freq"
BUFFERS = (ROTARY,)


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


def states(tensors: Mapping[str, np.ndarray]) -> int:
    """Rows of the token table."""
    return _size(tensors, "vocab_embed.embedding", 2, 0)


def _size(tensors: Mapping[str, np.ndarray], name: str, ndim: int, axis: int) -> int:
    """One dimension of a tensor that must be there."""
    require(name in tensors, f"the checkpoint lacks {name}")
    shape = tensors[name].shape
    require(len(shape) == ndim, f"{name} has shape {shape}; {ndim} dimensions expected")
    return shape[axis]


def sizes(tensors: Mapping[str, np.ndarray], *, heads: int = 0) -> dict[str, Any]:
    """Fields of the network's config, from the shapes of its tensors alone.

    Args:
      tensors: under the reference's names.
      heads: 0 = from the rotary buffer, whose length is half a head's width.

    Raises:
      UserError: where a tensor that tells a size is absent, or the heads cannot be told.
    """
    width = _size(tensors, "vocab_embed.embedding", 2, 1)
    require(width > 0, "vocab_embed.embedding has width 0")
    numbers = {n.split(".")[1] for n in tensors if n.startswith("blocks.")}
    depth = len(numbers)  # each block has tensors: a number alone makes none
    strange = sorted(numbers - set(map(str, range(depth))))
    require(
        not strange,
        f"blocks are numbered from 0 on without gaps; of {depth} one is blocks.{strange[:1]}",
    )
    adaln = any("adaLN_modulation." in n or n.startswith("sigma_map.") for n in tensors)
    found: dict[str, Any] = dict(
        width=width,
        depth=depth,
        heads=_heads(tensors, width, heads),
        mlp_ratio=_size(tensors, "blocks.0.mlp.0.weight", 2, 0) // width,
        latent="layer_norm.weight" in tensors,
        adaln=adaln,
        causal=not adaln,
    )
    if adaln:
        found["cond_width"] = _size(tensors, "sigma_map.mlp.2.weight", 2, 0)
    table = "cond_map.embedding_table.weight"
    if table in tensors:
        found["num_classes"] = _size(tensors, table, 2, 0) - 1
    return found


def rotary(width: int, heads: int) -> np.ndarray:
    """The buffer of rotary frequencies, base^(-2 i / d) for the d = width / heads of a head."""
    half = width // heads // 2
    return (float(ROTARY_BASE) ** -(np.arange(half) / half)).astype(np.float32)


def _heads(tensors: Mapping[str, np.ndarray], width: int, heads: int) -> int:
    """Number of heads, given or from the rotary buffer, which must be of our base."""
    allowed = [n for n in range(1, width // 2 + 1) if width % (2 * n) == 0]
    if ROTARY in tensors:
        buffer = np.asarray(tensors[ROTARY], np.float64)
        half = buffer.shape[0] if buffer.ndim == 1 else 0
        told = width // (2 * half) if half and width % (2 * half) == 0 else 0
        require(told > 0, f"{ROTARY} of shape {buffer.shape} does not divide the width {width}")
        require(
            bool(np.allclose(buffer, rotary(2 * half, 1), rtol=1e-5)),
            f"{ROTARY} holds other frequencies than base {ROTARY_BASE}; this network rotates "
            "differently and cannot be imported",
        )
        require(heads in (0, told), f"{heads} heads given, but {ROTARY} tells {told}")
        return told
    require(
        heads in allowed,
        f"the file does not tell the number of heads (no {ROTARY}); give --heads, one of "
        f"{', '.join(map(str, allowed))}"
        if not heads
        else f"{heads} heads do not divide the width {width}; one of "
        f"{', '.join(map(str, allowed))}",
    )
    return heads


def network(
    tensors: Mapping[str, np.ndarray], tokens: TokenSpace, *, heads: int = 0, **choices: Any
) -> tuple[DiT, Any]:
    """The network of these tensors and its parameters.

    Args:
      tensors: by the reference's names.
      tokens: states and mask.
      heads: of attention; 0 = as `sizes` finds them.
      choices: fields of `DiT` that shapes do not tell.

    Raises:
      UserError: where a tensor is missing, surplus or misshapen.
    """
    model = DiT(tokens=tokens, **{**sizes(tensors, heads=heads), **choices})
    return model, from_reference(tensors, jax.eval_shape(model.init, jax.random.key(0)))


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
        value = np.asarray(tensors[name], np.float32)
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
        there = in_files(path, like.shape)
        if value is not None and value.shape != there:
            wrong.append(f"{name} is {value.shape}, expected {there}")
        elif value is not None:
            out[path] = value.reshape(like.shape)
    surplus = sorted(set(tensors) - used - set(BUFFERS))
    _refuse(missing, surplus, wrong)
    return _nest(out)


def from_own(tensors: Mapping[str, np.ndarray], shapes: Any) -> Any:
    """Parameters from tensors under our own names, the path with dots.

    Raises:
      UserError: listing missing, surplus and misshapen names.
    """
    wanted = {".".join(path): (path, like) for path, like in _leaves(shapes).items()}
    _refuse(
        sorted(set(wanted) - set(tensors)),
        sorted(set(tensors) - set(wanted)),
        [
            f"{name} is {tensors[name].shape}, expected {in_files(path, like.shape)}"
            for name, (path, like) in wanted.items()
            if name in tensors and tensors[name].shape != in_files(path, like.shape)
        ],
    )
    one = lambda name, like: np.asarray(tensors[name], np.float32).reshape(like.shape)
    return _nest({path: one(name, like) for name, (path, like) in wanted.items()})


def to_own(params: Any) -> dict[str, np.ndarray]:
    """Tensors under our own names; inverse of `from_own`."""
    one = lambda path, a: np.ascontiguousarray(np.asarray(a).reshape(in_files(path, a.shape)))
    return {".".join(path): one(path, a) for path, a in _leaves(params).items()}


def _refuse(missing: list[str], surplus: list[str], wrong: list[str]) -> None:
    """Both sides of a misfit, in one line."""
    if missing or surplus or wrong:
        raise UserError(
            f"checkpoint does not fit this network: missing {missing or 'none'}; "
            f"surplus {surplus or 'none'}; misshapen {wrong or 'none'}"
        )


def to_reference(params: Any) -> dict[str, np.ndarray]:
    """Tensors under the reference's names from our parameters; inverse of `from_reference`.

    Raises:
      UserError: for a latent narrower than the network, which the reference does not have.
    """
    out: dict[str, np.ndarray] = {}
    leaves = _leaves(params)
    width = leaves["trunk", "embed", "table"].shape[1]
    carried = leaves.get(("trunk", "latent_norm", "norm", "scale"))
    require(
        carried is None or carried.shape[0] == width,
        f"the latent has {0 if carried is None else carried.shape[0]} of {width} channels "
        "(model.latent_width); the reference carries all of them and would read it wrongly; "
        "export under own names",
    )
    for path, value in leaves.items():
        value = np.asarray(value).reshape(in_files(path, value.shape))
        if path[:2] == ("trunk", "blocks"):
            name, transposed = _BLOCK[path[2:]]
            for i, part in enumerate(value):
                out[f"blocks.{i}.{name}"] = np.ascontiguousarray(part.T if transposed else part)
        else:
            name, transposed = _PLAIN[path]
            out[name] = np.ascontiguousarray(value.T if transposed else value)
    return out
