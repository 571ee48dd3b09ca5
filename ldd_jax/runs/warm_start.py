"""Beginning a run with the parameters of another: what may differ, and what may be new."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ldd_jax.config import experiment as experiments
from ldd_jax.config import stored
from ldd_jax.config.experiment import Experiment
from ldd_jax.core.checks import require
from ldd_jax.core.storage import at
from ldd_jax.data import Tokenizer, load_tokenizer
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints

# What may differ between a network and the one it begins with: none of it changes a function that
# the old parameters say.
INDIFFERENT = (
    "latent",
    "latent_width",
    "carried",
    "dropout",
    "dtype",
    "remat",
    "chunks",
    "unroll",
    "attention",
    "param_dtype",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
)
# What an autoregressive network gives up when it becomes a diffusion model: a shifted prediction
# keeps the meaning of its rows.
ADAPTED = ("causal", "shift", "begin")
# What the old network may lack: it is zero at first, so that the new one computes the same.
ADDED = ("latent_norm", "lora_")


def check(experiment: Experiment, new: Any) -> Any:
    """The abstract parameters of `training.initial`, on this run's mesh, if they fit into `new`.

    Raises:
      UserError: if tokenizer, network or any parameter does not fit, with both sides.
    """
    workdir = at(experiment.training.initial)
    config = stored.load_config(workdir)
    if "vocab_multiple" in experiment.config.model:  # the zeros behind it are this run's
        with config.unlocked():
            config.model.vocab_multiple = experiment.config.model.vocab_multiple
    base = experiments.build(config, load_tokenizer(workdir / "tokenizer"), experiment.mesh)
    require(
        base.tokenizer.digest == experiment.tokenizer.digest,
        f"the tokenizer of {workdir} ({base.tokenizer.digest}) is not that of the data "
        f"({experiment.tokenizer.digest}); its parameters mean other tokens",
    )
    there, here = (dict(c.model.items()) for c in (config, experiment.config))
    free = INDIFFERENT
    if base.objective.needs_causal and here.get("shift", "none") != "none":
        free += ADAPTED
    free += () if there.get("latent", False) else ("carry", "carry_at")  # at h = 0 all are alike
    if experiment.objective.by_block:  # as masked diffusion, or with blocks of another size
        free += ("block",)
    other = [n for n in there if n in here and n not in free and there[n] != here[n]]
    shown = "; ".join(f"model.{n}: {there[n]!r} there, {here[n]!r} here" for n in other)
    require(not other, f"{workdir} holds another network ({shown})")
    old = base.abstract().params
    have, want = _named(old), _named(new)
    wrong = [f"{n} is not known here" for n in have if n not in want]
    wrong += [f"{n} is not there" for n in want if n not in have and not any(a in n for a in ADDED)]
    wrong += [
        f"{n} has shape {have[n].shape} there, {want[n].shape} here"
        for n in have
        if n in want and have[n].shape != want[n].shape
    ]
    require(not wrong, f"the parameters of {workdir} do not fit: {'; '.join(wrong[:6])}")
    return old


def begin(experiment: Experiment, state: states.TrainState) -> tuple[states.TrainState, str]:
    """A new state with the averaged parameters of `training.initial`, and where they come from.

    What only the new network has stays as it is in `state`.

    Raises:
      UserError: as `check`, or if there is no whole checkpoint.
    """
    workdir, like = at(experiment.training.initial), check(experiment, state.params)
    checkpoints, size = Checkpoints(workdir, read_only=True), experiment.tokens.size
    found, meta = checkpoints.restore_params(like, ema=True, states=size)
    have, structure = _named(found), jax.tree.structure(state.params)
    filled = [
        have[name].astype(leaf.dtype) if name in have else leaf
        for name, leaf in _named(state.params).items()
    ]
    params = jax.tree.unflatten(structure, filled)
    copied = lambda p, e: jax.device_put(jnp.copy(p), e.sharding)
    ema = None if state.ema is None else jax.tree.map(copied, params, state.ema)
    state = dataclasses.replace(state, params=params, ema=ema)
    return state, f"begins with the averaged parameters of {workdir} at step {meta['step']}"


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their dotted path, in the order of the tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def tokenizer(config: ConfigDict, workdir: Path) -> Tokenizer | None:
    """That of the workdir, else of the run that it begins with, else none: it is to be fitted."""
    initial = config.training.get("initial", "")
    for folder in (workdir, *([at(initial)] if initial else [])):
        if (folder / "tokenizer" / "tokenizer.json").is_file():
            return load_tokenizer(folder / "tokenizer")
    return None
