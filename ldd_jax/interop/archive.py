"""PyTorch archives through torch's weights-only reader: no code of the file is ever run.

Lightning stores configs and tokenizers beside the tensors. Their classes are replaced by `Inert`,
which keeps what it is given and does nothing, so that such a file can be read at all. The reader
puts items into plain mappings only, so a class whose instances get items (the `defaultdict` of
a resolved OmegaConf) is replaced by one that makes a plain mapping.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldd_jax.core.checks import UserError, require

_DEEPEST, _NODES = 12, 100_000
_FILLED = {"SETITEM", "SETITEMS"}
_MADE = {"REDUCE", "NEWOBJ", "BUILD", "APPEND", "APPENDS"}  # what lies lowest keeps its name


class Inert:
    """Stands for any class or function that a file names."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """An instance that holds nothing."""
        del args, kwargs
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class InertMapping:
    """Stands for a class of mappings: a plain one with the items that the file gives it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict:  # type: ignore[misc]
        """An empty mapping."""
        del args, kwargs
        return OrderedDict()


def load(path: Path) -> Any:
    """The content of an archive, tensors on the CPU.

    Raises:
      UserError: without torch, for a file that its weights-only reader refuses, or one that claims
        to hold more than it has bytes.
    """
    _refuse_bombs(path)
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is a PyTorch archive; pip install 'ldd-jax[torch]' to read it, or store its "
            "tensors as safetensors"
        ) from error
    options: dict[str, Any] = dict(map_location="cpu", weights_only=True)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        options["mmap"] = True
    except ValueError:  # the format before archives; nothing in it is replaced
        names = []
    except Exception as error:  # a damaged archive: torch raises many types
        raise UserError(f"{path} cannot be read: {_line(error)}") from error
    filled = _filled(path) if names else set()
    stubs = [
        (type("Inert", (InertMapping if name in filled else Inert,), {}), name) for name in names
    ]
    try:
        with torch.serialization.safe_globals(stubs):
            return torch.load(str(path), **options)
    except Exception as error:
        raise UserError(f"{path} is refused by torch's weights-only reader: {_line(error)}") from (
            error
        )


def _filled(path: Path) -> set[str]:
    """Names of the classes and functions of an archive whose results get items."""
    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = (n for n in archive.namelist() if n.split("/")[-1] == "data.pkl")
            return filled(archive.read(member))
    except (ValueError, IndexError, KeyError, OSError, zipfile.BadZipFile):
        return set()  # damaged: torch says how


def filled(pickled: bytes) -> set[str]:
    """Names in a pickle whose calls make what later gets items; nothing of it is run.

    Raises:
      ValueError, IndexError, KeyError: for what is no whole pickle.
    """
    mark = object()
    stack: list[Any] = []  # names where they are known, of the call for what the call made
    memo: dict[int, Any] = {}
    found: set[str] = set()

    def drop(kinds: list[Any]) -> None:
        if pickletools.stackslice in kinds:
            while stack.pop() is not mark:
                pass
            kinds = kinds[: kinds.index(pickletools.markobject)]
        del stack[len(stack) - len(kinds) :]

    operations: Iterable[tuple[Any, Any, Any]] = pickletools.genops(pickled)
    for code, argument, _ in operations:
        before, after = code.stack_before, code.stack_after
        if code.name == "GLOBAL":
            stack.append(argument.replace(" ", "."))
        elif code.name == "MARK":
            stack.append(mark)
        elif code.name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif code.name.endswith("GET"):
            stack.append(memo[argument])
        elif code.name in _MADE | _FILLED:
            drop(before[1:])
            if code.name in _FILLED and isinstance(stack[-1], str):
                found.add(stack[-1])
        else:
            drop(before)
            stack.extend([None] * len(after))
    return found


def _refuse_bombs(path: Path) -> None:
    """What torch saves is never compressed: an archive cannot hold more than it has bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the format before archives, or a damaged one: torch says which
    size = path.stat().st_size
    require(claimed <= size, f"{path} claims to hold {claimed:,} bytes, the file has {size:,}")


def _line(error: BaseException) -> str:
    """The reader's own reason, without torch's advice to read the file unsafely."""
    text = str(error).strip() or type(error).__name__
    reason = text.rpartition("WeightsUnpickler error:")[2].strip()
    reason = reason.partition("\n")[0].partition(" Please use ")[0]
    advice = ("weights_only", "safe_globals")
    if any(word in reason for word in advice):
        reason = "it holds objects that are not plain data"
    return " ".join(reason.split())[:300]


def state_dict(content: Any, path: Path) -> dict[str, np.ndarray]:
    """Named tensors: of a Lightning checkpoint, of SEDD's, or a bare mapping.

    Raises:
      UserError: if there are none.
    """
    if isinstance(content, Mapping):
        for part in (content.get("state_dict"), content.get("model"), content):
            if isinstance(part, Mapping) and part and all(map(_is_tensor, part.values())):
                require(all(type(k) is str for k in part), f"{path} names a tensor by no text")
                return dict(zip(part, arrays(part.values(), path)))
    raise UserError(f"{path} holds no table of named tensors (state_dict)")


def is_sedd(content: Any) -> bool:
    """Whether this is what SEDD's code saves: model, ema, optimizer and step, and no config."""
    return isinstance(content, Mapping) and {"model", "ema", "step"} <= set(content)


def shadow(content: Any, path: Path) -> list[np.ndarray] | None:
    """The bare list of moving averages, or None."""
    ema = content.get("ema") if isinstance(content, Mapping) else None
    listed = ema.get("shadow_params") if isinstance(ema, Mapping) else ema
    if listed is None:
        return None
    require(
        isinstance(listed, list | tuple) and all(map(_is_tensor, listed)),
        "the checkpoint's 'ema' is no list of tensors; expected {'shadow_params': [...]}",
    )
    return arrays(listed, path)


def config(content: Any) -> Mapping[str, Any]:
    """The config that Lightning stored among the hyper-parameters, as plain values."""
    given = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    found = plain(given)
    inner = found.get("config") if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def plain(value: Any) -> Any:
    """Mappings, lists and scalars out of what was stored as omegaconf nodes.

    Raises:
      UserError: for a config that unfolds to more than `_NODES` nodes, as shared lists can.
    """
    left = _NODES

    def unfold(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        require(left >= 0, f"the checkpoint's config has more than {_NODES:,} entries")
        if depth > _DEEPEST:
            return None
        if isinstance(value, Inert):
            state = value.state if isinstance(value.state, dict) else {}
            return unfold(state.get("_content", state.get("_val")), depth + 1)
        if isinstance(value, Mapping):
            return {k: unfold(v, depth + 1) for k, v in value.items() if isinstance(k, str)}
        if isinstance(value, list | tuple):
            return [unfold(v, depth + 1) for v in value]
        return value if isinstance(value, str | int | float | bool) else None

    return unfold(value, 0)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def arrays(tensors: Iterable[Any], path: Path) -> list[np.ndarray]:
    """Numpy arrays of the same bytes.

    Raises:
      UserError: for tensors that are not plain numbers in memory, or have more bytes together than
        the file: views of one number may claim any size.
    """
    import torch

    tensors, size = list(tensors), path.stat().st_size
    known = {getattr(torch, name) for name in _KINDS}
    for tensor in tensors:
        plainly = tensor.layout is torch.strided and tensor.device.type == "cpu"
        require(
            plainly and tensor.dtype in known and not tensor.is_neg() and tensor.numel() > 0,
            f"{path} holds a tensor of shape {tuple(tensor.shape)} ({tensor.dtype}, "
            f"{tensor.layout}, on {tensor.device}); only plain real numbers are read",
        )
    total = sum(t.numel() * t.element_size() for t in tensors)
    require(total <= size, f"{path} has {size:,} bytes, its tensors claim {total:,}")
    return [array(t) for t in tensors]


_KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
          "bool")  # fmt: skip


def array(tensor: Any) -> np.ndarray:
    """A numpy array of the same bytes."""
    import ml_dtypes
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
