"""Orbax checkpoints: parameters, average and optimizer are items that restore alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ldd_jax.core.checks import UserError
from ldd_jax.training.state import TrainState

FORMAT = 1


class Checkpoints:
    """Asynchronous saves of a TrainState and a JSON record under `workdir/checkpoints`."""

    def __init__(self, workdir: Path, *, keep: int = 2, read_only: bool = False):
        self.directory = Path(workdir).absolute() / "checkpoints"
        if read_only and not self.directory.is_dir():
            raise UserError(f"{workdir} holds no checkpoints; train there first")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=not read_only,
            read_only=read_only,
            enable_async_checkpointing=True,
        )
        self.manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        """Newest complete step."""
        return self.manager.latest_step()

    def save(self, state: TrainState, meta: dict[str, Any]) -> None:
        """Start a save of `state`; returns before it is on disk."""
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            ema=ocp.args.StandardSave(state.ema),
            optim=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            meta=ocp.args.JsonSave({"format": FORMAT, **meta}),
        )
        self.manager.save(int(state.step), args=args)

    def save_parameters(self, step: int, params: Any, ema: Any, meta: dict[str, Any]) -> None:
        """Start a save of parameters alone, which no training can resume from."""
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(params),
            ema=ocp.args.StandardSave(ema),
            meta=ocp.args.JsonSave({"format": FORMAT, **meta}),
        )
        self.manager.save(step, args=args)

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict]:
        """The whole state at `step` (newest by default), placed as the abstract state `like`."""
        args = ocp.args.Composite(
            params=ocp.args.StandardRestore(like.params),
            ema=ocp.args.StandardRestore(like.ema),
            optim=ocp.args.StandardRestore({"step": like.step, "opt_state": like.opt_state}),
            meta=ocp.args.JsonRestore(),
        )
        found = self._read(args, step)
        state = TrainState(params=found["params"], ema=found["ema"], **found["optim"])
        return state, found["meta"]

    def restore_params(self, like: Any, *, ema: bool, step: int | None = None) -> tuple[Any, dict]:
        """Parameters only, averaged or not, placed as `like`."""
        item = "ema" if ema else "params"
        args = ocp.args.Composite(
            **{item: ocp.args.StandardRestore(like)}, meta=ocp.args.JsonRestore()
        )
        found = self._read(args, step)
        return found[item], found["meta"]

    def _read(self, args: Any, step: int | None) -> Any:
        step = self.latest() if step is None else step
        if step is None or step not in self.manager.all_steps():
            have = ", ".join(map(str, self.manager.all_steps())) or "none"
            raise UserError(f"{self.directory.parent}: no checkpoint {step}; there are: {have}")
        try:
            return self.manager.restore(step, args=args)
        except (ValueError, KeyError, TypeError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {step} in {self.directory.parent} does not fit the config (another "
                f"architecture, vocabulary or method?): {first}"
            ) from error

    def close(self) -> None:
        """Wait until everything is on disk."""
        self.manager.wait_until_finished()
        self.manager.close()
