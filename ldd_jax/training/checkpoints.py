"""Orbax checkpoints: parameters, average and optimizer are items that restore alone.

Sizes and SHA-256 of all files are part of a checkpoint before it gets its name, so that a damaged
one is known, passed over in favour of the newest whole one, and said.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from ldd_jax.core import kept, lease, storage, writing
from ldd_jax.core.checks import RunError, UserError, is_number
from ldd_jax.training import digests, distributed, handlers, shapes, whole
from ldd_jax.training.retention import Retention
from ldd_jax.training.state import TrainState

SCORE = "score"
ALONE = "parameters_alone"  # in the record of a save that holds no average beside them


class _Manager(ocp.CheckpointManager):
    """Stops are the loop's: it counts its own calls, and must be the only one that asks."""

    def reached_preemption(self, step: int) -> bool:
        """Never."""
        return False


class Checkpoints:
    """Asynchronous saves of a TrainState and a JSON record under `workdir/checkpoints`.

    A writer moves damaged checkpoints that are newer than the newest whole one to
    `workdir/damaged` before it starts; a reader leaves everything where it is.

    Raises:
      UserError: for a reader, if there are none; for a writer, if there are some but none is whole.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 2,
        every: int = 0,
        best: int = 0,
        read_only: bool = False,
    ):
        self.directory = storage.at(workdir).absolute() / "checkpoints"
        self.kept = kept.kept(self.directory)
        self.found = whole.Whole(self.directory, self.kept)
        self.retention = Retention(keep, every, best)
        if read_only and not self.directory.is_dir():
            raise UserError(f"{workdir} holds no checkpoints; train there first")
        if not read_only:
            if distributed.leader():
                writing.refuse_links([self.directory, self.directory.parent / whole.DAMAGED])
            self.found.set_aside()
            distributed.barrier("checkpoints")
        self.saving, self.read_only, self.closed = 0, read_only, False
        together = self.kept.apart and jax.process_count() > 1 and not read_only
        rank, count = (jax.process_index(), jax.process_count()) if together else (0, 1)
        token = distributed.agreed(secrets.randbits(31)) if together else 0
        self.share = kept.Share(rank, count, token)
        # Where every process works in a folder of its own, each is the first there.
        primary = ocp.options.MultiprocessingOptions(primary_host=None if together else 0)
        options = ocp.CheckpointManagerOptions(
            multiprocessing_options=primary,
            preservation_policy=None if read_only else self.retention,
            save_interval_steps=0 if read_only else 1,
            create=not (read_only or together),
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
        )
        try:
            with _quiet() if read_only else contextlib.nullcontext():
                parts = handlers.by_item(primary, apart=together)
                self.manager = _Manager(self.kept.local, options=options, item_handlers=parts)
        except Exception as error:  # as in `_read`
            raise UserError(f"{self.directory} cannot be opened: {_reason(error)}") from error

        if not read_only and best:
            for step in self.kept.steps():
                self._score(step, whole.record(self.kept.folder(step, ["meta"])).get(SCORE))

    def _score(self, step: int, score: Any) -> None:
        if is_number(score):
            self.retention.scores[step] = float(score)

    def latest(self) -> int | None:
        """Newest complete step; for a writer, it is whole."""
        return self.manager.latest_step()

    def beyond(self, step: int) -> int | None:
        """The newest whole checkpoint if it is after `step`, else None; others are not read."""
        return self.found.beyond(step)

    def save(self, state: TrainState, meta: dict[str, Any], score: float | None = None) -> None:
        """Start a save of `state`; returns before it is on disk.

        Args:
          state: of the run.
          meta: what JSON can hold, kept beside it.
          score: of its validation, the lower the better; None = it has none.

        Raises:
          RunError: if this save, or the one before, cannot be written.
        """
        record = {"format": whole.FORMAT, ALONE: state.ema is None, SCORE: score, **meta}
        self._score(int(state.step), score)
        items = dict(
            params=ocp.args.StandardSave(state.params),
            optim=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            meta=ocp.args.JsonSave(record),
        )
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        if jax.tree.leaves(state.aux):
            items["aux"] = ocp.args.StandardSave(state.aux)
        self._save(int(state.step), ocp.args.Composite(**items))

    def _save(self, step: int, args: Any) -> None:
        self._wait()
        self.saving = step
        try:
            self.manager.save(step, args=args, force=True)
        except (ValueError, RuntimeError, OSError) as error:
            raise self._unwritten(error) from error

    def _seal(self) -> None:
        """Add the digests; called when all files of a save are written, before it is named."""
        if distributed.leader() or self.kept.apart:
            begun = f"{self.saving}.orbax-checkpoint-tmp"
            for folder in self.kept.local.iterdir():  # every new glob stays in Python's caches
                if folder.name.startswith(begun):
                    digests.write(folder, 1 if self.kept.apart else jax.process_count())
                    lease.check(self.directory.parent)
                    self.kept.publish(folder, self.saving, self.retention.stay, self.share)

    def _wait(self) -> None:
        try:
            self.manager.wait_until_finished()
        except (ValueError, RuntimeError, OSError) as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> RunError:
        return RunError(
            f"cannot write checkpoint {self.saving} in {self.directory}: {_reason(error)}; those "
            "before it are untouched, the same command goes on from the newest"
        )

    def save_parameters(self, step: int, params: Any, ema: Any, meta: dict[str, Any]) -> None:
        """Start a save of parameters alone, which no training can resume from.

        Args:
          step: updates done.
          params: parameters.
          ema: their moving average, in the same structure; None = they are it, stored once.
          meta: what JSON can hold, kept beside them.
        """
        items = {"params": params} | ({} if ema is None else {"ema": ema})
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(item) for name, item in items.items()},
            meta=ocp.args.JsonSave({"format": whole.FORMAT, ALONE: ema is None, **meta}),
        )
        self._save(step, args)

    def restore(
        self, like: TrainState, step: int | None = None, *, states: int = 0
    ) -> tuple[TrainState, dict]:
        """The whole state at `step`, placed as the abstract state `like`.

        Args:
          like: shapes, types and places that are wanted.
          step: number of the checkpoint; None = the newest.
          states: of the vocabulary, behind which there may be another number of zeros.

        Returns:
          The state, and the checkpoint's record.
        """
        items: dict[str, Any] = dict(
            params=like.params,
            optim={"step": like.step, "opt_state": like.opt_state},
        )
        items |= {"ema": like.ema} if like.ema is not None else {}
        items |= {"aux": like.aux} if jax.tree.leaves(like.aux) else {}
        found = self._read(items, step, states)
        parts = {name: found[name] for name in items if name != "optim"}
        state = TrainState(**{"ema": None} | parts, **found["optim"])
        return state, found["meta"]

    def restore_params(
        self, like: Any, *, ema: bool, step: int | None = None, states: int = 0
    ) -> tuple[Any, dict]:
        """Parameters only, averaged or not, placed as `like`.

        Args:
          like: abstract parameters with the shardings that they shall have.
          ema: the moving average in their stead.
          step: number of the checkpoint; None = the latest.
          states: as in `restore`.

        Returns:
          Parameters, and the checkpoint's meta.
        """
        newest = max(self.kept.steps(), default=0)
        record = self.kept.folder(newest if step is None else step, ["meta"])
        alone = whole.record(record).get(ALONE) is True
        item = "ema" if ema and not alone else "params"
        found = self._read({item: like}, step, states)
        return found[item], found["meta"]

    def _read(self, items: dict[str, Any], step: int | None, states: int) -> dict[str, Any]:
        """Each item as wanted, and "meta"."""
        step = self.found.choose([*items, "meta"], step, trusted=not self.read_only)
        try:
            folder = self.kept.folder(step, [*items, "meta"])
            rows = shapes.rows_of(whole.record(folder), states)
            args = {"meta": ocp.args.JsonRestore()}
            for name, like in items.items():
                there = shapes.as_stored(like, shapes.stored(folder / name), states, rows)
                args[name] = ocp.args.StandardRestore(there)
            found = self.manager.restore(step, args=ocp.args.Composite(**args))
            laid = {name: shapes.laid(found[name], like) for name, like in items.items()}
            return laid | {"meta": found["meta"]}
        except Exception as error:  # Orbax and TensorStore raise whatever a strange file provokes
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"checkpoint {step} in {self.directory.parent} does not fit the config (another "
                f"architecture, vocabulary or method?): {first}"
            ) from error

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
          RunError: if it cannot be written.
        """
        self._wait()
        self.manager.close()
        self.closed = True

    def abandon(self) -> None:
        """Close after an error, unless that is done; a write that fails too is left as it is."""
        if not self.closed:
            with contextlib.suppress(RunError):
                self.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warnings; it has one for a folder that is only read."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _reason(error: BaseException | None) -> str:
    """What the operating system said, through Orbax and TensorStore; else the error's own words."""
    text = " ".join(str(error).split())[:200]
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return os.strerror(int(found[1]))
        error = error.__cause__ or error.__context__
    return text
