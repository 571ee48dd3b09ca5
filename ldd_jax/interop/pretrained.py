"""A folder of transformers (GPT-2, Llama, Qwen, LLaDA, Dream, SDAR) becomes a workdir."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ldd_jax.config import experiment as experiments
from ldd_jax.config import recipes
from ldd_jax.core.checks import nearest, require
from ldd_jax.core.registry import find, parse, section
from ldd_jax.data import IdTokenizer, Json, Tokenizer, find_tokenizer
from ldd_jax.data.tokenizers import is_ours
from ldd_jax.denoisers import published
from ldd_jax.denoisers.described import Described, describe
from ldd_jax.interop import folders
from ldd_jax.interop.choices import Choices
from ldd_jax.training import sharding

LENGTH = 1024
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")


@dataclasses.dataclass(frozen=True)
class Read:
    """What a folder gives: the experiment, its parameters on the mesh, and the record."""

    experiment: experiments.Experiment
    params: Any
    record: dict[str, Any]


def read(path: Path, choices: Choices) -> Read:
    """The network of a folder; tensors are read one by one, straight to where they belong.

    An autoregressive network gets one more token, the mask, unless one is named: its row is the
    mean of all others, its logit is never read.

    Args:
      path: the folder.
      choices: what the user says of it.

    Raises:
      UserError: for what does not fit, with both sides, before a tensor is read.
    """
    there = folders.fields(path)
    found = describe(there, str(path / "config.json"))
    for name in ("heads", "time", "recording"):
        given = getattr(choices, name)
        require(not given, f"--{name}={given} does not apply: {path / 'config.json'} tells it")
    usual = "ar" if found.autoregressive else "mdlm"
    require(
        choices.method in ("", usual),
        f"{path} is a {found.kind}, which is read with --method={usual}; another method begins "
        f"with its workdir ({'configs/adapt.py' if found.autoregressive else 'configs/finetune.py'}"
        ":from=DIR)",
    )
    shards = folders.shards(path)
    bare = found.names is published.GPT2_NAMES and "wte.weight" in shards.place
    if bare:
        found = dataclasses.replace(found, names=found.names.bare(published.GPT2_PREFIX))
    tokenizer = _tokenizer(path, found, choices)
    require(
        tokenizer.size <= found.rows,
        f"the tokenizer has {tokenizer.size} ids, the token table of {path} {found.rows} rows; it "
        "belongs to another network",
    )
    states, mask = _mask(path, found, choices, tokenizer)
    half = {kind for _, _, kind in shards.place.values()} == {"BF16"}
    config = _config(found, choices, tokenizer, usual, states, mask, half)
    experiment = experiments.build(config, tokenizer, experiments.fitting_mesh(config))
    model: Any = experiment.model
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    sizes = {n: shape for n, (_, shape, _) in shards.place.items()}
    published.check(found.names, shapes, sizes, rows=found.rows, what=str(path))
    _tied(path, found, shards)
    sharding.check(experiment.mesh, model.axes(), shapes)
    places = dict(published.leaves(sharding.parameters(experiment.mesh, model.axes())))
    pairs, same = [], 0
    for leaf, like in published.leaves(shapes):
        value = published.one(found.names, leaf, like.shape, shards.get, like.dtype)
        same += _same(found, leaf, value, shards)
        pairs.append((leaf, jax.block_until_ready(jax.device_put(value, places[leaf]))))
        del value
    params = published.nested(pairs, shapes)
    used = [n for n in sizes if not found.names.passed.fullmatch(n)]
    tied = found.fields.get("tied", True) and found.names.tied in used
    record = {
        "source": path.name,
        "sha256": shards.digest(),
        "kind": found.kind,
        "rows": found.rows,
        "bare": bare,
        "config": there,
        "tensors": len(used),
        "prefix": "",
        "dtypes": {n: str(np.dtype(_kind(shards.place[n][2]))) for n in used},
        "averaged": False,
        "parameters": sum(int(a.size) for a in jax.tree.leaves(params)),
        "said_by_file": {},
        "round_trip": {"identical_tensors": same + tied, "tensors": len(used)},
        "own_names": False,
        "step": 0,
        "updates": 0,
    }
    return Read(experiment, params, record)


def _kind(name: str) -> Any:
    import ml_dtypes

    kinds = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}
    require(name in kinds, f"a parameter is stored as {name}; {nearest(name, kinds)}")
    return kinds[name]


def _same(found: Described, leaf: published.Path, value: np.ndarray, shards: Any) -> int:
    """How many tensors a leaf gives back byte for byte."""
    inside = value[: found.rows] if leaf[-1] == "table" and leaf[1] == "embed" else value
    inside = inside[:, : found.rows] if leaf == ("head", "kernel") else inside
    parts = inside if leaf[:2] == ("trunk", "blocks") else inside[None]
    count = 0
    for (name, turned), part in zip(found.names.of(leaf, len(value)), parts, strict=True):
        old = shards.get(name)
        new = (part.T if turned else part).astype(old.dtype)
        count += np.ascontiguousarray(new).tobytes() == np.ascontiguousarray(old).tobytes()
    return count


def _tied(path: Path, found: Described, shards: Any) -> None:
    """A head beside a tied table must be that table."""
    name, (table, _) = found.names.tied, found.names.whole["trunk", "embed", "table"]
    if found.fields.get("tied", True) and name in shards.place:
        equal = np.array_equal(shards.get(name), shards.get(table))
        require(
            equal,
            f"{path}: config.json ties head and token table, but {name} is not {table}",
        )


def _tokenizer(path: Path, found: Described, choices: Choices) -> Tokenizer:
    """The user's, the folder's, or one of ids."""
    if choices.tokenizer:
        return find_tokenizer(choices.tokenizer)
    file = path / "tokenizer.json"
    if file.is_file() and not is_ours(file):
        names = Json(path=str(file)).fit(lambda: (), needs=())
        given = {n: _name(names, i) for n, i in (("bos", found.bos), ("eos", found.eos))}
        return Json(path=str(file), **given).fit(lambda: (), needs=())
    if any((path / n).is_file() for n in VOCABULARIES) or sorted(path.glob("*.model")):
        return find_tokenizer(path)
    return IdTokenizer(found.rows)


def _name(tokenizer: Any, number: int | None) -> str:
    """The name of a token, "" where there is none."""
    return "" if number is None else tokenizer.name_of(number) or ""


def _mask(path: Path, found: Described, choices: Choices, tokenizer: Tokenizer) -> tuple[int, int]:
    """States of the process and the id of its mask."""
    mask = choices.resolved(tokenizer).mask
    if mask < 0 and found.mask is not None:
        mask = found.mask
    if mask < 0 and found.autoregressive:
        return found.rows + 1, found.rows
    require(
        mask >= 0, f"{path / 'config.json'} names no mask_token_id; give --mask=TOKEN or --mask=ID"
    )
    require(mask < found.rows, f"--mask={mask}: the network has {found.rows} tokens")
    return found.rows, mask


def _config(
    found: Described,
    choices: Choices,
    tokenizer: Tokenizer,
    method: str,
    states: int,
    mask: int,
    half: bool,
) -> ConfigDict:
    data: dict[str, Any] = {
        "length": choices.length or min(found.length, LENGTH),
        "eos": tokenizer.eos is not None,
        "tokenizer": section(find("tokenizer", tokenizer.kind)),
    }
    if choices.data:
        data["path"] = choices.data
    process: dict[str, Any] = {"states": states, "mask": mask}
    begin = found.eos if found.bos is None else found.bos
    if found.autoregressive and begin is not None:
        process["begin"] = begin
    if choices.schedule:
        require(not found.autoregressive, "--schedule does not apply: nothing is masked")
        process["schedule"] = section(parse("schedule", choices.schedule))
    fields = {n: v for n, v in found.fields.items() if n != "frequencies"}
    if "frequencies" in found.fields:
        fields["frequencies"] = section(found.fields["frequencies"])
    config = recipes.make(
        {"method": method, "size": "tiny"},
        network=found.model,
        data=data,
        model=fields | {"param_dtype": "bfloat16" if half else "float32", "unroll": 1},
        process=process,
    )
    with config.unlocked():
        config.recipe = f"import,method={method}"
    return config
