"""Metrics to Weights & Biases, beside the files of a workdir; extra `wandb`."""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path
from typing import Any

from ldd_jax.core import reading, writing
from ldd_jax.core.checks import UserError, one_line, require

RECORD = "wandb.json"
UPDATE = "update"  # what curves are drawn over


def check(project: str) -> None:
    """Refuse a project where the library is not installed; "" = there is none.

    Raises:
      UserError: naming the extra.
    """
    if not project:
        return
    try:
        from wandb import init  # noqa: F401  (a folder of that name is no library)
    except ImportError as error:
        raise UserError(
            f"training.wandb={project} needs W&B's library; pip install 'ldd-jax[wandb]'"
        ) from error


class WandB:
    """One run of W&B for a workdir, also over restarts; its id is in the workdir's wandb.json.

    The library's own environment variables hold (WANDB_MODE=offline, WANDB_DIR, WANDB_API_KEY). Its
    files lie where it puts them, by default in ./wandb: it makes links, which no workdir has.
    What is repeated after a restart stands there twice, over the same update.

    Args:
      project: its name there.
      workdir: of the run.
      title: of the run there.
      config: shown beside it.

    Raises:
      UserError: in one line, if it cannot be begun.
    """

    def __init__(self, project: str, workdir: Path, title: str, config: dict[str, Any]):
        import wandb

        try:
            self.run: Any = wandb.init(
                project=project,
                id=_id(workdir),
                resume="allow",
                name=title,
                config=config,
            )
            self.run.define_metric(UPDATE)
            self.run.define_metric("*", step_metric=UPDATE)
        except Exception as error:  # the library's own kinds are many, and change
            raise UserError(f"training.wandb={project}: {one_line(error)}") from error

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Finite numbers, over the update."""
        good = lambda v: isinstance(v, int | float) and math.isfinite(v)
        self.run.log({UPDATE: step, **{n: v for n, v in values.items() if good(v)}})

    def close(self) -> None:
        """Send what is left; twice does no harm."""
        if self.run is not None:
            self.run.finish()
            self.run = None


def _id(workdir: Path) -> str:
    """The workdir's own, made at its first run."""
    path = workdir / RECORD
    if not path.is_file():
        writing.write(path, json.dumps({"id": secrets.token_hex(6)}) + "\n")
    found = reading.read_json(path)
    name = found.get("id") if isinstance(found, dict) else None
    require(
        isinstance(name, str) and name.isalnum() and len(name) < 65, f"{path} holds no id of a run"
    )
    return str(name)
