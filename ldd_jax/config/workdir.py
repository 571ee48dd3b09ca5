"""The folder of a run: whose it is, and what continues in it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ldd_jax.config import plugins, stored
from ldd_jax.config.experiment import Experiment
from ldd_jax.core import lease, registry, writing
from ldd_jax.core.checks import UserError, require
from ldd_jax.core.console import say
from ldd_jax.data import Tokenizer

# What may change when a run is continued; anything else belongs to another workdir.
FREE = (
    "training.num_steps",
    "training.log_every",
    "training.eval_every",
    "training.keep",
    "training.max_skipped",
    "training.sample_every",
    "training.checkpoint_every",
    "training.wandb",
    "training.ema_on_host",
    "evaluation.",
    "sampling.",
    "mesh.",
    "objective.tile",
    "model.remat",
    "model.chunks",
    "model.unroll",
    "model.vocab_multiple",
)


LOCK = "lock"
# Folders that a run writes into or deletes from.
FOLDERS = ("checkpoints", "damaged", "tensorboard", "tokenizer", "skipped", "profile")


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Create the workdir, or make sure that it belongs to this config.

    Raises:
      UserError: listing the fields that differ.
    """
    if not (workdir / "config.json").exists():
        # Drafts and a lock are left by a run that was killed in its first moment.
        own = lambda path: path.name == LOCK or writing.is_draft(path)
        require(
            not workdir.exists() or (workdir.is_dir() and all(map(own, workdir.iterdir()))),
            f"{workdir} exists and is no workdir; give an empty or new folder",
        )
        return
    there = stored.load_config(workdir).to_dict()
    # A run that is older than a field goes on with its default, which is what it was trained with.
    there |= {name: registry.filled(name, there[name]) for name in stored.SECTIONS}
    old, new = flat(there), flat(config.to_dict())
    changed = {k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
    refused = sorted((k for k in changed if not k.startswith(FREE)), key=_recipe_first)
    if refused:
        shown = "; ".join(f"{k}: {old.get(k)!r} there, {new.get(k)!r} given" for k in refused[:6])
        more = f" and {len(refused) - 6} more" if len(refused) > 6 else ""
        raise UserError(f"{workdir} holds another run ({shown}{more}); give another --workdir")
    for name in sorted(changed):
        say(f"continuing with {name} = {new.get(name)!r} (was {old.get(name)!r})")


def _recipe_first(field: str) -> tuple[bool, str]:
    return field != "recipe", field


def flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Fields of a nested config by dotted name; tuples as lists, as JSON keeps them.

    Args:
      tree: of a config.
      prefix: before every name.
    """
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out


def check_place(workdir: Path) -> None:
    """Refuse a folder that cannot be written, or made; nothing is.

    Raises:
      UserError: saying where.
    """
    writing.check_folder(workdir, f"--workdir={workdir}")


def claim(
    workdir: Path, config: ConfigDict, tokenizer: Tokenizer, held: contextlib.ExitStack
) -> None:
    """Create the folder with its config and tokenizer, as far as they are not there, and lock it.

    The lock dies with the process, however that ends, or with `held`.

    Args:
      workdir: the folder.
      config: of the run.
      tokenizer: of the run.
      held: gives the lock back when it is closed.

    Raises:
      UserError: if it cannot be written, or another run holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        writing.refuse_links(workdir / name for name in FOLDERS)
        lease.hold(workdir / LOCK, held)
        open_workdir(workdir, config)  # another run may have come between
        for left in filter(writing.is_draft, list(workdir.iterdir())):
            left.unlink()
        plugins.record(workdir, config)
        if not (workdir / "config.json").exists():
            stored.save_config(config, workdir)
        if not (workdir / "tokenizer" / "tokenizer.json").is_file():
            tokenizer.save(workdir / "tokenizer")
    except OSError as error:
        raise UserError(f"cannot write --workdir={workdir}: {error.strerror}") from error


def check_tokenizer(experiment: Experiment, meta: dict[str, Any], workdir: Path) -> None:
    """Refuse a checkpoint that was trained with another tokenizer than the workdir's.

    Args:
      experiment: of the workdir.
      meta: of the checkpoint.
      workdir: the folder, for the message.

    Raises:
      UserError: naming both.
    """
    here = experiment.tokenizer.digest
    there = meta.get("tokenizer", here)
    require(
        there == here,
        f"the tokenizer in {workdir} ({here}) is not the one its checkpoint was trained with "
        f"({there}); put that one back",
    )
