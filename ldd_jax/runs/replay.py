"""Skipped updates: what they were given is kept, and can be run again to the bit.

`WORKDIR/skipped/step-N` holds the batch of update N (a file per process), what came of it, and the
newest checkpoint before it (hard links where the disk has them). The updates between that
checkpoint and N depend on the seed and the step alone, so that they can be made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldd_jax.config import experiment as experiments
from ldd_jax.config.experiment import Experiment
from ldd_jax.core import kept, reading, writing
from ldd_jax.core.checks import UserError, nearest, require
from ldd_jax.data import batches
from ldd_jax.training import distributed, sharding
from ldd_jax.training import state as states
from ldd_jax.training.checkpoints import Checkpoints
from ldd_jax.training.metrics import finite

FOLDER, RECORD = "skipped", "skipped.json"
# Dumps that a workdir keeps: the first ones.
KEPT = 5


def dump(
    workdir: Path, step: int, arrays: dict[str, np.ndarray], values: Mapping[str, float]
) -> Path | None:
    """Keep what an update was given; None if the workdir has enough of them.

    Args:
      workdir: of the run.
      step: number of the update.
      arrays: the batch, this process's share.
      values: metrics of the update.
    """
    place = workdir / FOLDER / f"step-{step}"
    others = [p for p in place.parent.glob("step-*") if p != place]
    if len(others) >= KEPT:
        return None
    place.mkdir(parents=True, exist_ok=True)
    rank, count = jax.process_index(), jax.process_count()
    batch = place / f"batch-{rank:05d}-of-{count:05d}.npz"
    with writing.replacing(batch, binary=True) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    if distributed.leader():
        _keep_checkpoint(workdir / "checkpoints", place / "checkpoints", step)
        record = {"step": step, "processes": count, **values}
        writing.write(place / RECORD, json.dumps(finite(record), indent=2) + "\n")
    return place


def _keep_checkpoint(source: Path, target: Path, step: int) -> None:
    """Link the newest checkpoint before `step`; the manager may be deleting one meanwhile."""
    if target.exists():
        return
    place = kept.kept(source)
    for number in sorted((n for n in place.steps() if n < step), reverse=True):
        try:
            place.copy(number, target / str(number))
            return
        except (OSError, shutil.Error):
            shutil.rmtree(target, ignore_errors=True)


def read_batch(place: Path) -> dict[str, np.ndarray]:
    """The global batch of a dump.

    Raises:
      UserError: if files are missing or damaged.
    """
    parts = sorted(place.glob("batch-*-of-*.npz"))
    try:
        record = reading.read_json(place / RECORD)
        require(len(parts) == record["processes"], f"{place} lacks batch files; {len(parts)} there")
        shares = [reading.read_npz(path) for path in parts]
        whole = {n: np.concatenate([s[n] for s in shares]) for n in shares[0]}
        _, once = np.unique(whole["index"], return_index=True)  # processes may share rows
        return {n: a[once] for n, a in whole.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{place} is damaged: {error}") from error


def replay(workdir: Path, step: int) -> dict[str, Any]:
    """Run update `step` again as it was and say what is not finite.

    Returns:
      loss, grad_norm, finite, the batch's rows whose loss is not finite, and the names of
      parameters and gradients that are not finite.

    Raises:
      UserError: if nothing was kept of this update.
    """
    have = {p.name.removeprefix("step-"): p for p in (workdir / FOLDER).glob("step-*")}
    if str(step) not in have:
        raise UserError(f"{workdir}: no skipped update {step} was kept; {nearest(str(step), have)}")
    place = have[str(step)]
    arrays, experiment = read_batch(place), experiments.restore(workdir)
    state = _state_before(experiment, place, step)
    values, bad = _examine(experiment, state, arrays)
    return values | {"step": step} | bad


def _state_before(experiment: Experiment, place: Path, step: int) -> states.TrainState:
    """The state that update `step` started from."""
    like = experiment.abstract()
    if (place / "checkpoints").is_dir():
        state, _ = Checkpoints(place, read_only=True).restore(like, states=experiment.tokens.size)
    else:
        state = experiment.initial()
    corpus = experiments.read_corpus(experiment)
    stream = batches(
        corpus.train, batch_size=experiment.training.batch_size, seed=experiment.config.seed
    )
    first = int(state.step)
    stream.set_state({"next_step": first})
    run = experiments.step_function(experiment, like)
    key = sharding.everywhere(experiment.mesh, experiment.key(1))
    for _ in range(first, step - 1):
        state, _ = run(state, sharding.put(experiment.mesh, next(stream)), key)
    return state


def _examine(
    experiment: Experiment, state: states.TrainState, arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss and gradient of one batch, and where they are not finite."""
    update = experiment.update

    def measure(state, arrays, key):
        import optax

        _, batch, key = update.begin(state, arrays, key)
        loss, g = update.gradients(state.params, batch, key)
        broken = lambda tree: jax.tree.map(lambda a: jnp.any(~jnp.isfinite(a)), tree)
        row = ~jnp.isfinite(loss.metrics["loss_B"])
        return loss.total, optax.global_norm(g), row, broken(state.params), broken(g)

    mesh = experiment.mesh
    run = jax.jit(sharding.on(mesh, measure), out_shardings=sharding.replicated(mesh))
    key = sharding.everywhere(mesh, experiment.key(1))
    found = jax.device_get(run(state, sharding.put(mesh, arrays), key))
    loss, norm, row, params_bad, grads_bad = found
    names = lambda tree: [
        jax.tree_util.keystr(path) for path, bad in jax.tree_util.tree_leaves_with_path(tree) if bad
    ]
    values = {"loss": float(loss), "grad_norm": float(norm)}
    values["finite"] = bool(np.isfinite(loss) and np.isfinite(norm))
    bad = {"rows": np.flatnonzero(row).tolist()}
    return values, bad | {"parameters": names(params_bad), "gradients": names(grads_bad)}


def describe(found: dict[str, Any]) -> str:
    """What `replay` found, in words."""
    few = lambda names: f"{', '.join(map(str, names[:8]))}{' ...' * (len(names) > 8)}" or "none"
    return (
        f"update {found['step']}: loss {found['loss']}, gradient norm {found['grad_norm']}: "
        f"{'finite' if found['finite'] else 'not finite, as in the run'}\n"
        f"rows of the batch whose loss is not finite: {few(found['rows'])}\n"
        f"parameters that are not finite: {few(found['parameters'])}\n"
        f"gradients that are not finite: {few(found['gradients'])}"
    )
