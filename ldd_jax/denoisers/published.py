"""Under which names published checkpoints keep the tensors of our decoders.

`Linear` weights are [out, in] and turned over; GPT-2's `Conv1D` is [in, out], as ours.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ldd_jax.core.checks import UserError, require
from ldd_jax.denoisers.linears import QKV, in_files

Path = tuple[str, ...]
Name = tuple[str, bool]  # theirs, and whether it is turned over
# What only we have, beside the network's own tensors.
OWN = ("latent_norm", "time", "time_out")


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of one layout.

    whole: of tensors that stand once; block: of one block, with {} for its number; passed: names
    that are read over, buffers of old versions; tied: of a head that may be there beside the table.
    """

    whole: Mapping[Path, Name]
    block: Mapping[Path, Name]
    passed: re.Pattern
    tied: str

    def of(self, path: Path, depth: int) -> list[Name]:
        """Their names of one of our leaves: one, or one for every block."""
        if path[:2] == ("trunk", "blocks"):
            name, turned = self.block[path[2:]]
            return [(name.format(i), turned) for i in range(depth)]
        return [self.whole[path]]

    def bare(self, prefix: str) -> Names:
        """Without the name of the module that holds all but the head, as GPT-2 is published."""
        less = lambda table: {p: (n.removeprefix(prefix), t) for p, (n, t) in table.items()}
        passed = re.compile(f"({prefix})?{self.passed.pattern.removeprefix(re.escape(prefix))}")
        whole, block = less(self.whole), less(self.block)
        return dataclasses.replace(self, whole=whole, block=block, passed=passed)


def _linears(pairs: Mapping[str, str]) -> dict[Path, Name]:
    """Weights and biases of linear layers, ours -> theirs."""
    out: dict[Path, Name] = {}
    for ours, theirs in pairs.items():
        out |= {
            (ours, "kernel"): (f"{theirs}.weight", True),
            (ours, "bias"): (f"{theirs}.bias", False),
        }
    return out


def _scales(pairs: Mapping[str, str]) -> dict[Path, Name]:
    return {(ours, "scale"): (f"{theirs}.weight", False) for ours, theirs in pairs.items()}


_L = "model.layers.{}."
LLAMA = Names(
    whole={
        ("trunk", "embed", "table"): ("model.embed_tokens.weight", False),
        ("trunk", "final_norm", "scale"): ("model.norm.weight", False),
        ("head", "kernel"): ("lm_head.weight", True),
    },
    block=_scales(
        {
            "norm1": _L + "input_layernorm",
            "norm2": _L + "post_attention_layernorm",
            "q_norm": _L + "self_attn.q_norm",
            "k_norm": _L + "self_attn.k_norm",
        }
    )
    | _linears(
        {
            "q": _L + "self_attn.q_proj",
            "k": _L + "self_attn.k_proj",
            "v": _L + "self_attn.v_proj",
            "out": _L + "self_attn.o_proj",
            "gate": _L + "mlp.gate_proj",
            "up": _L + "mlp.up_proj",
            "down": _L + "mlp.down_proj",
        }
    ),
    passed=re.compile(r".*rotary_emb\.inv_freq"),
    tied="lm_head.weight",
)
_B = "model.transformer.blocks.{}."
LLADA = Names(
    whole={
        ("trunk", "embed", "table"): ("model.transformer.wte.weight", False),
        ("trunk", "final_norm", "scale"): ("model.transformer.ln_f.weight", False),
        ("head", "kernel"): ("model.transformer.ff_out.weight", True),
    },
    block=_scales({"norm1": _B + "attn_norm", "norm2": _B + "ff_norm"})
    | _linears(
        {
            "q": _B + "q_proj",
            "k": _B + "k_proj",
            "v": _B + "v_proj",
            "out": _B + "attn_out",
            "gate": _B + "ff_proj",
            "up": _B + "up_proj",
            "down": _B + "ff_out",
        }
    ),
    passed=re.compile(r".*rotary_emb\.inv_freq"),
    tied="model.transformer.ff_out.weight",
)
_H = "transformer.h.{}."
_CONV = {QKV: "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
_NORMS = {"norm1": "ln_1", "norm2": "ln_2"}


def _both(pairs: Mapping[str, str], weight: str, inner: Path) -> dict[Path, Name]:
    """Weights and biases of GPT-2's layers, none turned over."""
    out: dict[Path, Name] = {}
    for ours, theirs in pairs.items():
        out[ours, *inner, weight] = f"{_H}{theirs}.weight", False
        out[ours, *inner, "bias"] = f"{_H}{theirs}.bias", False
    return out


GPT2_PREFIX = "transformer."
GPT2_NAMES = Names(
    whole={
        ("trunk", "embed", "table"): ("transformer.wte.weight", False),
        ("trunk", "positions", "table"): ("transformer.wpe.weight", False),
        ("trunk", "final_norm", "norm", "scale"): ("transformer.ln_f.weight", False),
        ("trunk", "final_norm", "norm", "bias"): ("transformer.ln_f.bias", False),
    },
    block=_both(_CONV, "kernel", ()) | _both(_NORMS, "scale", ("norm",)),
    passed=re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias"),
    tied="lm_head.weight",
)


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, leaf) of a nested mapping."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, (*path, key))


def nested(pairs: Iterable[tuple[Path, Any]], like: Any) -> Any:
    """The nested mapping in the structure of `like`, whose empty parts stay empty.

    Args:
      pairs: (path, leaf) of all leaves.
      like: of `leaves`.
    """
    found = dict(pairs)

    def fill(tree: Any, path: Path) -> Any:
        if not isinstance(tree, Mapping):
            return found[path]
        return {key: fill(value, (*path, key)) for key, value in tree.items()}

    return fill(like, ())


def check(
    names: Names, shapes: Any, sizes: Mapping[str, tuple[int, ...]], *, rows: int, what: str
) -> None:
    """Refuse tensors that are not exactly the network's, naming both sides.

    Args:
      names: layout.
      shapes: our parameters, arrays or their shapes.
      sizes: name -> shape of every tensor that is there.
      rows: rows of their token table, where ours has more (a mask appended); else its size.
      what: the folder, for the message.

    Raises:
      UserError: with missing, surplus and misshapen tensors.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    for path, like in leaves(shapes):
        if path[1:2] and path[1] in OWN:
            continue
        for name, turned in names.of(path, like.shape[0]):
            shape = like.shape[1:] if path[:2] == ("trunk", "blocks") else like.shape
            shape = in_files(path, shape)
            shape = their_shape(path, tuple(shape), rows)
            wanted[name] = shape[::-1] if turned else shape
    tied = set() if names.tied in wanted else {names.tied}
    surplus = sorted(n for n in set(sizes) - set(wanted) - tied if not names.passed.fullmatch(n))
    missing = sorted(set(wanted) - set(sizes))
    wrong = [
        f"{n} is {sizes[n]}, expected {shape}"
        for n, shape in wanted.items()
        if n in sizes and tuple(sizes[n]) != shape
    ]
    if missing or surplus or wrong:
        few = lambda some: (", ".join(some[:8]) + (" ..." if len(some) > 8 else "")) or "none"
        raise UserError(
            f"{what} does not fit the network that its config.json describes: missing "
            f"{few(missing)}; surplus {few(surplus)}; misshapen {few(wrong)}"
        )


def their_shape(path: Path, shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Shape of a leaf there.

    Args:
      path: of the leaf.
      shape: of it here.
      rows: tokens there.
    """
    if path == ("trunk", "embed", "table"):
        return (rows, *shape[1:])
    return (*shape[:-1], rows) if path == ("head", "kernel") else shape


def one(
    names: Names, path: Path, shape: tuple[int, ...], get: Callable[[str], np.ndarray], dtype: Any
) -> np.ndarray:
    """One of our leaves, filled tensor by tensor; appended token rows are the mean of the others.

    Args:
      names: layout.
      path: of the leaf.
      shape: of the leaf.
      get: reads a tensor by its name.
      dtype: of the leaf.
    """
    out = np.empty(shape, dtype)
    blocks = path[:2] == ("trunk", "blocks")
    for i, (name, turned) in enumerate(names.of(path, shape[0])):
        value = get(name)
        value = value.T if turned else value
        if blocks:
            out[i] = value.reshape(shape[1:])
        elif value.shape == shape:
            out[...] = value
        else:  # tokens, of which ours are more
            axis = 0 if path[-1] == "table" else 1
            part = [slice(None)] * 2
            part[axis] = slice(value.shape[axis])
            mean = np.mean(value, axis=axis, keepdims=True, dtype=np.float32)
            out[...] = mean.astype(dtype)
            out[tuple(part)] = value
    return out


def written(names: Names, params: Any, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """(their name, tensor) of all parameters but our own; tokens past `rows` are left out.

    Args:
      names: layout.
      params: ours, arrays of the host.
      rows: tokens that the network has there.
    """
    for path, value in leaves(params):
        if path[1:2] and path[1] in OWN:
            continue
        value = np.asarray(value)
        if path == ("trunk", "embed", "table"):
            value = value[:rows]
        elif path == ("head", "kernel"):
            value = value[:, :rows]
        value = value.reshape(in_files(path, value.shape))
        parts = value if path[:2] == ("trunk", "blocks") else value[None]
        for (name, turned), part in zip(names.of(path, value.shape[0]), parts, strict=True):
            yield name, np.ascontiguousarray(part.T if turned else part)


def from_arrays(
    names: Names, shapes: Any, tensors: Mapping[str, np.ndarray], what: str
) -> dict[str, Any]:
    """Parameters in float32 from tensors in memory.

    Args:
      names: layout.
      shapes: our parameters' shapes.
      tensors: by their names.
      what: their source, for messages.

    Raises:
      UserError: as `check`.
    """
    sizes = {n: a.shape for n, a in tensors.items()}
    table = dict(leaves(shapes))["trunk", "embed", "table"]
    check(names, shapes, sizes, rows=table.shape[0], what=what)
    require(bool(sizes), f"{what} holds no tensors")
    found = [
        (path, one(names, path, like.shape, tensors.__getitem__, np.float32))
        for path, like in leaves(shapes)
    ]
    return nested(found, shapes)
