"""Everything a run says: metrics, skipped updates, lines on the terminal."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldd_jax.core.checks import RunError
from ldd_jax.training import metrics, watch
from ldd_jax.training.goodput import Goodput
from ldd_jax.training.watch import Interval, Watch


class Recorder:
    """Takes the scalars of every update, in order.

    Args:
      writers: where metrics go.
      progress: where lines go.
      speed: counts updates per second.
      every: updates between two log lines.
      patience: skipped updates in a row that end the run.
      dump: what to do with the batch of a skipped update; returns where it lies.
      saved: `saved()` of the checkpoint that the run goes on from.
      goodput: where its time goes.
      rate: the learning rate of an update, by its number from 1.
    """

    def __init__(
        self,
        writers: list[metrics.Writer],
        progress: metrics.Progress,
        speed: metrics.Throughput,
        *,
        every: int,
        patience: int,
        dump: Callable[[int, dict[str, np.ndarray], Mapping[str, float]], Path | None],
        saved: Mapping[str, Any] | None = None,
        goodput: Goodput,
        rate: Callable[[int], float],
    ):
        self.writers, self.progress, self.speed = writers, progress, speed
        self.every, self.patience, self.dump, self.rate = every, patience, dump, rate
        self.interval = watch.kept(Interval, (saved or {}).get("interval"))
        self.watch = watch.kept(Watch, (saved or {}).get("watch"))
        self.goodput, self.turn = goodput, goodput.turn
        self.rest, self.say, self.status = speed.rest, progress.say, progress.status

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        kept = {"interval": vars(self.interval), "watch": vars(self.watch)}
        return kept | {"goodput": self.goodput.saved()}

    def write(self, step: int, values: dict[str, Any]) -> None:
        """To all writers."""
        for writer in self.writers:
            writer.write(step, values)

    def record(self, step: int, new: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Take the metrics of one update in; write their means every `every` updates.

        Args:
          step: number of the update, counted from 1.
          new: its metrics, scalars, still on the device.
          arrays: the batch that it was given.

        Raises:
          RunError: when too many updates in a row were skipped.
        """
        values = {name: float(value) for name, value in new.items()}
        self.interval.add(values)
        spike = self.watch.add(values)
        self.progress.step()
        self.speed.step()
        if spike:
            self.say(
                f"step {step}: loss {values['loss']:.4f} is a spike, {spike:.1f} standard "
                "deviations above its recent mean"
            )
            self.write(step, {"spike": values["loss"]})
        if not values["finite"]:
            self._skipped(step, values, arrays)
        if step % self.every == 0:
            rate = {"learning_rate": self.rate(step)}
            spent = self.speed.read() | self.goodput.read()
            self.write(step, self.interval.means() | rate | spent)
            self.interval = Interval()

    def _skipped(
        self, step: int, values: Mapping[str, float], arrays: dict[str, np.ndarray]
    ) -> None:
        place = self.dump(step, arrays, values)
        bad = " and ".join(
            f"{word} is {values[name]}"
            for name, word in (("loss", "loss"), ("grad_norm", "gradient norm"))
            if not math.isfinite(values[name])
        )
        where = f"; batch in {place}" if place else ""
        self.say(f"step {step}: {bad}; the update is skipped ({self.watch.in_row} in a row){where}")
        if self.watch.in_row >= self.patience:
            raise RunError(
                f"stopped at step {step}: {self.watch.in_row} updates in a row were skipped, "
                f"because {bad}; parameters are those of step {step - self.watch.in_row}. "
                f"`ldd_jax replay --workdir=... --step={step - self.watch.in_row + 1}` shows where "
                "it begins; often the learning rate is too high"
            )

    def close(self) -> None:
        """Close the writers; twice does no harm."""
        for writer in self.writers:
            writer.close()

    def abandon(self) -> None:
        """Close after an error; a disk that is full stays so."""
        with contextlib.suppress(OSError):
            self.close()
