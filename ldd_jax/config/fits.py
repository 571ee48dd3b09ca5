"""Refuse components of a config that do not go together, in words, before anything compiles."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from ldd_jax import objectives
from ldd_jax.config.sections import block_of
from ldd_jax.core.checks import require
from ldd_jax.core.types import Model, Process
from ldd_jax.data.packing import LONGEST

MOST_TOKENS = 1 << 28  # of a batch, on all devices together


def check(config: ConfigDict, process: Process, model: Model, objective: Any) -> None:
    """Refuse what no run can have together.

    Args:
      config: of the run, all sections.
      process: made of it.
      model: likewise.
      objective: likewise.

    Raises:
      UserError: naming both sides, and what to set.
    """
    _target(config, objective, model)
    _signal(config, process, objective)
    _vectors(config, process, objective)
    _blocks(config, model, objective)
    require(
        not process.points or model.points,
        f"the states of process {config.process.name} are points, which do not enter this network; "
        "use model dit with model.input=linear (method=rdlm, configs/rdlm.py)",
    )
    require(
        model.latent or not objective.context.carries,
        "objective.context makes a latent, but model.latent is False; set it True or choose a "
        "method without loopholing (method=mdlm, method=udlm)",
    )
    require(
        model.causal or not objective.needs_causal,
        "next-token training needs a causal network, or it reads what it predicts; set "
        "model.causal True or choose method=ar",
    )
    require(
        not config.objective.get("draw_loops", False) or config.model.get("loops", 1) > 1,
        "objective.draw_loops draws how often a network loops, and this one has one loop; set "
        "model.loops (dit) to 2 or more, or draw_loops to False",
    )


def _target(config: ConfigDict, objective: Any, model: Model) -> None:
    """Refuse data and losses that do not go together."""
    here, name = "target" in config.data, config.objective.get("name")
    require(
        here or not objective.needs_target,
        f"objective {name} learns from a target, but the data are {config.data.get('name')}; set "
        "data to a section of TargetData (configs/ising.py)",
    )
    require(
        objective.needs_target or not here,
        f"objective {name} learns from data, and a target has none; choose method=mdns, mdns_lv, "
        "lddm_mdns or lddm_mdns_lv",
    )
    require(
        not (here and model.time_conditioning),
        "a sampler of a target reveals one site a call at no time of a grid; set "
        "model.time_conditioning to False",
    )


def _signal(config: ConfigDict, process: Process, objective: Any) -> None:
    """Refuse a process of several parts without the network and the loss for them."""
    if not process.parts:
        return
    wanted = process.parts["signal"].channels
    found = config.model.get("channels", 0)
    require(
        found == wanted,
        f"process.signal.channels is {wanted}, but the network has {found}; set model to "
        "signal_dit with as many (method=joint)",
    )
    require(
        bool(objective.joint),
        f"objective {config.objective.get('name')} is for tokens alone; set it to joint "
        "(method=joint)",
    )


def _vectors(config: ConfigDict, process: Process, objective: Any) -> None:
    """Refuse vectors that network, process and loss do not agree on."""
    shape = lambda part: (part.get("vectors", 0), part.get("size", 0))
    own, network = shape(config.process), shape(config.model)
    require(
        process.reader is None or own == network,
        f"process.vectors and .size are {own[0]} and {own[1]}, but the network (model "
        f"{config.model.name}) has {network[0]} and {network[1]}; set model to compressor with the "
        "same (method=autoencoder, configs/latent_diffusion.py)",
    )
    require(
        process.reader is None or isinstance(objective, objectives.LatentNelbo),
        f"objective {config.objective.get('name')} knows no vectors; set it to autoencoder or "
        "latent_nelbo",
    )
    require(
        config.model.name != "compressor" or process.reader is not None,
        "model compressor makes vectors of texts, and this process moves none; set it to gaussian",
    )


def _blocks(config: ConfigDict, model: Model, objective: Any) -> None:
    """Refuse a network by blocks without its loss, and the reverse."""
    block, name = block_of(model), config.objective.get("name")
    require(
        not objective.by_block or block > 0,
        f"objective {name} is for a network that sees blocks; set model.block to their size "
        "(method=block)",
    )
    require(
        objective.by_block or not block,
        f"model.block is {block}, but objective {name} asks about whole rows; use block_nelbo "
        "(method=block), or set it 0",
    )
    require(
        not block or config.data.get("length") % block == 0,
        f"data.length {config.data.get('length')} is no multiple of model.block {block}",
    )


def sizes(length: Any, **sections: Any) -> None:
    """Refuse rows and batches that no machine holds, before an array of them is asked for.

    Args:
      length: of a row, in tokens.
      **sections: of the run by their names, each with a `batch_size` in rows.

    Raises:
      UserError: with the bounds.
    """
    good = type(length) is int and 1 <= length <= LONGEST
    require(good, f"data.length is {length!r}; it must be 1 to {LONGEST:,} tokens")
    for name, section in sections.items():
        rows = section.batch_size
        require(
            rows * length <= MOST_TOKENS,
            f"{name}.batch_size is {rows:,}: with rows of {length:,} tokens a batch has more than "
            f"{MOST_TOKENS:,}",
        )
