"""What the config files are made of: methods, sizes, and a config of all sections.

Methods and sizes are structural: they are chosen in the config file's argument, as in
`configs/text.py:method=lddm_m,size=tiny`. A new method is registered (`config/methods.py`), a new
size one entry here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FieldReference

from ldd_jax.config import sections, stored
from ldd_jax.config.methods import DECODERS, methods
from ldd_jax.config.methods import method as method_of
from ldd_jax.core import registry
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import section
from ldd_jax.data import Bytes, Characters, Json, ProblemData, SentencePiece, TextData
from ldd_jax.objectives import Mgdm
from ldd_jax.training.optimizers import AdamW
from ldd_jax.training.sharding import MeshShape

SIZES = {
    "tiny": dict(width=96, depth=3, heads=4, cond_width=32, unroll=3),  # of a CPU
    "6m": dict(width=384, depth=3, heads=12),
    "small": dict(width=768, depth=12, heads=12),
    "medium": dict(width=1024, depth=24, heads=16),
    "1b": dict(width=2048, depth=24, heads=16),
    "7b": dict(width=4096, depth=32, heads=32),
    "70b": dict(width=8192, depth=80, heads=64),
}

# Name -> class, and the field that names a file of it.
TOKENIZERS: dict[str, tuple[type, str]] = {
    "characters": (Characters, ""),
    "bytes": (Bytes, ""),
    "sentencepiece": (SentencePiece, "model"),
    "json": (Json, "path"),
}

# Texts of one's own at tiny size: minutes on a laptop.
SHORT: dict[str, Any] = {
    "optim": {"lr": 3e-3, "warmup_steps": 200, "decay": "cosine", "b2": 0.99},
    "training": {
        "num_steps": 5000,
        "batch_size": 64,
        "ema_decay": 0.999,
        "log_every": 100,
        "eval_every": 1000,
        "sample_every": 1000,
        "checkpoint_every": 1000,
    },
    "evaluation": {"draws": 4},
}

# What the papers share (MDLM, UDLM, Duo, LDDM): optimizer, length and rhythm of training.
PUBLISHED = {
    "optim": {"lr": 3e-4, "warmup_steps": 2500},
    "training": {
        "num_steps": 1_000_000,
        "batch_size": 512,
        "log_every": 100,
        "eval_every": 20_000,
        "sample_every": 50_000,
        "checkpoint_every": 10_000,
    },
}


def arguments(text: str, **defaults: str) -> dict[str, str]:
    """Parse `method=lddm_m,size=tiny` against defaults.

    Raises:
      UserError: for a malformed, unknown or repeated argument, or an unknown choice in one.
    """
    chosen: dict[str, str] = {}
    for item in filter(None, (text or "").split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise UserError(
                f"config argument {item!r} is not name=value; {nearest(name, defaults)}"
            )
        if name not in defaults:
            raise UserError(f"unknown config argument {name!r}; {nearest(name, defaults)}")
        if name in chosen:
            raise UserError(f"config argument {name!r} is given twice")
        chosen[name] = value
    chosen = {**defaults, **chosen}
    tables: dict[str, dict[str, Any]] = {
        "method": methods(),
        "size": SIZES,
        "tokenizer": TOKENIZERS,
        "network": DECODERS,
    }
    for name, table in tables.items():
        if name in chosen and chosen[name] not in (*table, defaults[name]):
            raise UserError(f"unknown {name} {chosen[name]!r}; {nearest(chosen[name], table)}")
    return chosen


def tokenizer(chosen: dict[str, str]) -> ConfigDict:
    """The tokenizer section of the arguments `tokenizer` and `tokenizer_path`.

    Takes the path out of `chosen`: the section holds it, and a recipe's name names no files.

    Raises:
      UserError: for a path to a tokenizer that is read from no file.
    """
    kind, field = TOKENIZERS[chosen["tokenizer"]]
    path = chosen.pop("tokenizer_path")
    require(
        bool(field) or not path,
        f"tokenizer_path={path}: the {chosen['tokenizer']} tokenizer is read from no file; "
        f"tokenizer= one of {', '.join(n for n, (_, f) in TOKENIZERS.items() if f)}",
    )
    return section(kind, **({field: path} if path else {}))


def make(
    chosen: dict[str, str],
    *,
    network: type | None = None,
    source: type = TextData,
    data: dict[str, Any] | None = None,
    process: dict | None = None,
    model: dict | None = None,
    objective: dict | None = None,
    context: dict | None = None,
    optim: dict | None = None,
    training: dict | None = None,
    evaluation: dict | None = None,
    sampling: dict | None = None,
    mesh: dict | None = None,
) -> ConfigDict:
    """A whole locked config; each mapping sets fields of a section and leaves the others' defaults.

    Args:
      chosen: method and size, of `arguments`; all of it names the recipe.
      network: class of the network; None = the one chosen, else that of the method.
      source: class of the data section.
      data: fields of it.
      process: fields of the process.
      model: fields of the network, over those of the size and of the method.
      objective: fields of the loss.
      context: fields of its context, for methods that carry a latent.
      optim: fields of the optimizer.
      training: fields of the run.
      evaluation: fields of the evaluation.
      sampling: fields of the sampler.
      mesh: fields of the mesh.
    """
    method = method_of(chosen["method"])
    kind = network or DECODERS.get(chosen.get("network", ""), method.model)
    fields = dict(latent=method.latent, time_conditioning=method.time_conditioning)
    fields |= _known(kind, SIZES[chosen["size"]]) | _known(kind, method.network) | (model or {})
    scored = section(method.context, **((context or {}) if method.latent else {}))
    losses = {"context": scored, **method.scored, **(objective or {})}
    config = ConfigDict(
        {
            "recipe": ",".join(f"{k}={v}" for k, v in sorted(chosen.items()) if v),
            "seed": 0,
            "data": section(source, **(data or {})),
            "process": section(method.process, **(process or {})),
            "model": section(kind, **fields),
            "objective": section(method.objective, **losses),
            "optim": section(AdamW, **(optim or {})),
            "training": section(sections.Training, **(training or {})),
            "evaluation": section(
                sections.Evaluation, **{"passes": 1 + method.latent, **(evaluation or {})}
            ),
            "sampling": section(sections.Sampling, **{"step": method.step, **(sampling or {})}),
            "mesh": section(MeshShape, **(mesh or {})),
        }
    )
    return config.lock()


def sized(model: Any, size: str) -> dict[str, Any]:
    """The fields of a size that a network has."""
    return _known(model, SIZES[size])


def _known(model: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a network has: sizes and methods are written for the DiT."""
    has = {f.name for f in dataclasses.fields(model)}
    return {name: value for name, value in fields.items() if name in has}


def problems(
    chosen: dict[str, str],
    *,
    tiny: dict[str, Any],
    published: dict[str, Any],
    epochs: int,
    gamma: float = 2.0,
) -> ConfigDict:
    """A config for a task with a verifier: minutes on a core at size=tiny, else as published.

    All methods share one network without adaLN (but for those that are told the time), so that they
    have the same parameters. Published (MGDM, arXiv 2410.14157): batch 1,024, cosine, lr 1e-3 at 6M
    and 3e-4 at 85M, `epochs` over the training problems. `chosen`: method, size; `gamma`: MGDM's.
    """
    method, small = method_of(chosen["method"]), chosen["size"] == "tiny"
    data = tiny if small else published
    steps = 1200 if small else epochs * data["train_count"] // 1024
    return make(
        chosen,
        source=ProblemData,
        data=dict(validation_count=500 if small else 1000) | data,
        model=dict(adaln=method.time_conditioning, dtype="float32" if small else "bfloat16"),
        objective=dict(gamma=gamma) if method.objective is Mgdm else {},
        optim=dict(
            lr=5e-3 if small else 1e-3 if chosen["size"] == "6m" else 3e-4,
            warmup_steps=100 if small else 1000,
            decay="cosine",
            b2=0.99 if small else 0.999,
        ),
        training=dict(
            num_steps=steps,
            batch_size=64 if small else 1024,
            ema_decay=0.999,
            log_every=100,
            checkpoint_every=1000 if small else 5000,
        ),
        sampling=dict(num_steps=16 if small else 20, num_samples=4, batch_size=4),
    )


def methods_of(config: ConfigDict) -> list[str]:
    """Names of the methods with the process, network, objective and latent of a config."""
    named = lambda part: part.registered[1]
    return [
        name
        for name, m in methods().items()
        if named(m.process) == config.process.name
        and m.takes(config.model.name)
        and named(m.objective) == config.objective.name
        and m.latent == config.model.latent
    ]


class OfPath(FieldReference):
    """A field of a data section that belongs to its path: another value for another path.

    Given by itself, it is what is given.
    """

    def __init__(self, path: FieldReference, here: Any, elsewhere: Any):
        self._path, self._first, self._elsewhere = path, path.get(), elsewhere
        super().__init__(here)
        self._given = False

    def set(self, value: Any, type_safe: bool = True) -> None:
        """From now on `value`, whatever the path."""
        super().set(value, type_safe)
        self._given = True

    def get(self) -> Any:
        """The value for the path as it is now."""
        same = self._given or self._path.get() == self._first
        return super().get() if same else self._elsewhere


def adapt(workdir: str, method: str = "mdlm") -> ConfigDict:
    """The config that turns an autoregressive run or import into masked diffusion.

    DiffuLLaMA (arXiv 2410.17891): the same parameters, the same data, predictions that stay
    shifted by one, and a causal mask that opens over objective.anneal_steps updates. lddm_m adds a
    latent at LayerNorm zero, so that the function is unchanged at first.

    Args:
      workdir: of a run or an import with method=ar and a network of `methods.DECODERS`.
      method: mdlm or lddm_m.

    Raises:
      UserError: for a folder that is no such workdir, or another method.
    """
    require(bool(workdir), "which run to adapt? give from=WORKDIR in the config's argument")
    base = stored.load_config(Path(workdir))
    config = ConfigDict(base.to_dict())
    chosen = method_of(method)
    fits = [n for n in ("mdlm", "lddm_m") if method_of(n).takes(base.model.name)]
    require(
        base.process.name == "left_to_right" and bool(fits),
        f"{workdir} has a {base.process.name} process and a {base.model.name} network; adapted are "
        f"autoregressive runs and imports with the networks {', '.join(DECODERS)}",
    )
    require(method in fits, f"method {method!r}; {nearest(method, fits)}")
    require("path" in config.data, f"{workdir} learned from {base.data.name} data without a path")
    config.process = section(chosen.process, states=base.process.states, mask=base.process.mask)
    start = dict(causal=False, shift="start", begin=base.process.begin)
    config.model.update(start | dict(latent=chosen.latent, param_dtype="float32"))
    if "positions" in config.model:  # the start takes one
        config.data.length = min(config.data.length, config.model.positions - 1)
    config.objective = section(
        chosen.objective, context=chosen.context, anneal_steps=500, **chosen.scored
    )
    config.recipe = f"adapt,method={method},{base.recipe}"
    return _tuned(config, base, workdir, chosen)


def _tuned(config: ConfigDict, base: ConfigDict, workdir: str, method: Any) -> ConfigDict:
    """With the optimizer, rhythm and sampler of a run that begins with another."""
    own = registry.find("data", base.data.name).of_path  # type: ignore[attr-defined]
    path = config.data.get_ref("path")
    for name, elsewhere in own.items():
        config.data[name] = OfPath(path, config.data[name], elsewhere)
    config.optim = section(AdamW, lr=3e-4, warmup_steps=100, decay="cosine")
    config.training = section(
        sections.Training,
        num_steps=1000,
        batch_size=base.training.batch_size,
        ema_decay=0.999,
        eval_every=200,
        checkpoint_every=200,
        initial=workdir,
    )
    if method is not None:
        config.evaluation.passes = 1 + method.latent
        config.sampling.step = section(method.step)
    return config.lock()


def fine_tune(workdir: str, method: str = "") -> ConfigDict:
    """The config of a run that begins with the parameters of `workdir` (a run or an import).

    Data, tokenizer, process and network are those of the workdir. Another data.path is read by the
    same rules, but what belongs to the old one (its validation file, a limit of documents) does not
    go with it. `method`, of the same process, changes the objective and where the latent comes
    from: lddm_m adds loopholing to an mdlm run.

    Raises:
      UserError: for a folder that is no workdir, or a method of another process.
    """
    require(bool(workdir), "which run to begin with? give from=WORKDIR in the config's argument")
    base = stored.load_config(Path(workdir))
    config = ConfigDict(base.to_dict())
    if method:
        chosen = method_of(method)
        objective = chosen.objective.registered[1]
        fits = [
            n
            for n, m in methods().items()
            if m.process.registered[1] == base.process.name and m.takes(base.model.name)
        ]
        require(
            method in fits,
            f"{workdir} has a {base.process.name} process and a {base.model.name} network; "
            f"{nearest(method, fits)}",
        )
        if objective != base.objective.name:
            config.objective = section(chosen.objective, **chosen.scored)
            config.sampling.step = section(chosen.step)
        config.objective.context = section(chosen.context)
        config.model.latent = chosen.latent
        config.evaluation.passes = 1 + chosen.latent
    require(
        "path" in config.data,
        f"{workdir} learned from {base.data.name} data, which have no path to be tuned on another",
    )
    if "anneal_steps" in config.objective:  # its mask is open
        config.objective.anneal_steps = 0
    config.recipe = ",".join(filter(None, ["finetune", method and f"method={method}", base.recipe]))
    return _tuned(config, base, workdir, None)
