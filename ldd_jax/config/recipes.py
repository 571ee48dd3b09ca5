"""What the config files are made of: methods, sizes, and a config of all sections.

Methods and sizes are structural: they are chosen in the config file's argument, as in
`configs/text.py:method=lddm_m,size=tiny`. A new method is registered (`config/methods.py`), a new
size one entry here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import relatives, sections, systems  # noqa: F401  (what they register)
from ldd_jax.config.methods import DECODERS, OF_DIT, methods
from ldd_jax.config.methods import method as method_of
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.core.registry import section
from ldd_jax.data import (
    Bytes,
    Characters,
    Json,
    Mixture,
    ProblemData,
    SentencePiece,
    TextData,
)
from ldd_jax.objectives import Mgdm
from ldd_jax.training.optimizers import OPTIMIZERS, AdamW
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

# What text is read from, by the argument `source`.
SOURCES: dict[str, type] = {"": TextData, "mixture": Mixture}

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
    defaults = {**defaults, "optim": ""}
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
        "optim": OPTIMIZERS,
        "source": SOURCES,
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
    kind: Any = network or DECODERS.get(chosen.get("network", ""), method.model)
    own = sorted(OF_DIT & method.network.keys())
    require(
        not own or kind.registered[1] not in DECODERS,
        f"method {chosen['method']} sets {', '.join(own)}, which network {chosen.get('network')} "
        "does not have; leave network out",
    )
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
            "optim": optimizer(chosen.get("optim", ""), optim or {}),
            "training": section(sections.Training, **(training or {})),
            "evaluation": section(
                sections.Evaluation, **{"passes": 1 + method.latent, **(evaluation or {})}
            ),
            "sampling": section(
                sections.Sampling,
                **{"step": method.step, "blocks": method.blocks, **(sampling or {})},
            ),
            "mesh": section(MeshShape, **(mesh or {})),
        }
    )
    return config.lock()


def sized(model: Any, size: str) -> dict[str, Any]:
    """The fields of a size that a network has."""
    return _known(model, SIZES[size])


def optimizer(name: str, fields: Mapping[str, Any]) -> ConfigDict:
    """The section of an optimizer, "" = AdamW, whose fields these are."""
    rule = OPTIMIZERS[name or "adamw"]
    known = _known(rule, fields)
    return section(rule, **known | {"lr": rule.pace * fields.get("lr", AdamW.lr)})


def _known(model: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that it has: sizes and methods are written for the DiT and AdamW."""
    has = {f.name for f in dataclasses.fields(model)}
    return {name: value for name, value in fields.items() if name in has}


def problems(
    chosen: dict[str, str],
    *,
    tiny: dict[str, Any],
    published: dict[str, Any],
    epochs: int,
    gamma: float = 2.0,
    lr: float = 5e-3,
) -> ConfigDict:
    """A config for a task with a verifier: minutes on a core at size=tiny, else as published.

    All methods share one network without adaLN (but for those that are told the time), so that they
    have the same parameters. Published (MGDM, arXiv 2410.14157): batch 1,024, cosine, lr 1e-3 at 6M
    and 3e-4 at 85M, `epochs` over the training problems. `chosen`: method, size; `gamma`: MGDM's;
    `lr`: at size=tiny.
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
            lr=lr if small else 1e-3 if chosen["size"] == "6m" else 3e-4,
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
        and all(_same(config.model, name, value) for name, value in m.network.items())
    ]


def _same(model: ConfigDict, name: str, value: Any) -> bool:
    """Whether a network's field is that of a method; a field that it lacks is no difference."""
    there = model.get(name, value)
    return there.name == value.registered[1] if isinstance(there, ConfigDict) else there == value
