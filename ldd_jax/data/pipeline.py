"""Batches in an order that depends on the seed and the step alone.

The order of the global batch is fixed first, over global positions step * B + i; a process then
reads its own rows of every batch. So two hosts see together what one would see, and a run
resumes exactly on another number of hosts: its state is the next step.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from ldd_jax.core.checks import UserError, require
from ldd_jax.data.packing import Rows


@dataclasses.dataclass(frozen=True)
class Spread:
    """At most `most` of the rows, at equal distances; 0 = all.

    Spread, since neighbours are alike: rows stand document after document, or class after class.
    """

    rows: Rows
    most: int

    def __len__(self) -> int:
        return min(self.most, len(self.rows)) if self.most else len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.rows[index * len(self.rows) // len(self)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Order:
    """Row numbers by global position; None past the end."""

    rows: int
    seed: int
    shuffle: bool
    repeat: bool

    def __post_init__(self):
        order = grain.MapDataset.range(self.rows)
        if self.shuffle:
            # Mixed, because grain's second epoch of seed s is its first of seed s + 1.
            mixed = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
            order = order.shuffle(seed=mixed)
        object.__setattr__(self, "_order", order.repeat() if self.repeat else order)

    def __call__(self, position: int) -> int | None:
        order = self._order  # type: ignore[attr-defined]
        return int(order[position]) if self.repeat or position < self.rows else None


def _stack(rows: Rows, numbers: list[int | None], first: int) -> dict[str, np.ndarray]:
    """The batch of these rows; None becomes a row that is kept and weighs nothing."""
    template = None
    if None in numbers:
        row = rows[0]
        template = {name: np.zeros_like(value) for name, value in row.items()}
        template["keep"] = np.ones_like(row["keep"])
    examples: list[Any] = [template if n is None else rows[n] for n in numbers]
    batch = {
        ("z0" if name == "tokens" else name): np.stack([e[name] for e in examples])
        for name in examples[0]
    }
    batch["index"] = np.arange(first, first + len(numbers), dtype=np.int32)
    return batch


class Batches(Iterator[dict[str, np.ndarray]]):
    """Iterator over batches; its state is `{"next_step": n}`, whatever the number of processes.

    Attributes:
      steps: number of batches; None = no end.
    """

    def __init__(self, steps: int | None, iterator: Any):
        self.steps, self._iterator = steps, iterator

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """Where the iterator stands, to be saved as JSON."""
        return {"next_step": int(self._iterator.get_state()["next_index"])}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a saved place.

        Raises:
          UserError: if `state` is not what `get_state` returned for data of this length.
        """
        step = state.get("next_step") if isinstance(state, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise UserError(f"data state {state!r}; expected {{'next_step': n}} with n >= 0")
        require(
            self.steps is None or step <= self.steps,
            f"data state says step {step}, but there are only {self.steps} batches",
        )
        self._iterator.set_state({"next_index": step})


def batches(
    rows: Rows,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    repeat: bool = True,
    own: range | None = None,
    threads: int = 2,
) -> Batches:
    """This process's rows of every global batch.

    Each element holds z0 int32 [b, L], keep bool [b, L], weight float32 [b, L], index int32 [b]
    (position in the global batch) and, where rows have it, segment int32 [b, L]; b = len(own).
    With `repeat` the rows are dealt again after each epoch, in a new order if shuffled, and a batch
    may hold the end of one epoch and the start of the next. Without it the last batch is filled
    with rows of weight 0 and keep True: shapes never change, no row is lost.

    Args:
      rows: what to read, by number.
      batch_size: rows of the global batch.
      seed: of the order; not negative.
      shuffle: permute the rows.
      repeat: go on for ever.
      own: which rows of a batch (`sharding.own`): several processes may have the same; None = all.
      threads: readers running ahead; 0 = read when asked.

    Raises:
      UserError: if the batch has not these rows, or (with `repeat`) is larger than the data.
    """
    total = len(rows)
    require(total > 0, "there are no rows to make batches of")
    require(batch_size > 0, f"batch_size={batch_size}; it must be at least 1")
    require(seed >= 0, f"seed={seed}; it must not be negative")
    require(threads >= 0, f"threads={threads}; it must not be negative")
    own = range(batch_size) if own is None else own
    require(
        0 <= own.start < own.stop <= batch_size and own.step == 1,
        f"own={own} are no rows of a batch of {batch_size}",
    )
    require(
        not repeat or batch_size <= total,
        f"a batch of {batch_size} rows is larger than the data ({total} rows); give at most "
        f"{total}, a longer text or a shorter row",
    )
    order = _Order(rows=total, seed=seed, shuffle=shuffle, repeat=repeat)

    def read(step: int) -> dict[str, np.ndarray]:
        start = step * batch_size
        return _stack(rows, [order(start + i) for i in own], own.start)

    steps = None if repeat else -(-total // batch_size)
    numbers = grain.MapDataset.range(steps or sys.maxsize // batch_size)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 if threads else 0)
    return Batches(steps, iter(numbers.map(read).to_iter_dataset(options)))
