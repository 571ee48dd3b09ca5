"""The command line with a ledger of examples: python -m tests.faults.recorded LEDGER train ...

Every batch that a training step is given is written down first: its step and the numbers of its
rows, which travel with the rows through the pipeline. FAULTS_PAUSE seconds pass before each step,
so that an observer can strike between two of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from ldd_jax.cli import main as command_line
from ldd_jax.runs import train


class Numbered:
    """Rows that carry their number."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {**self.rows[index], "row": np.int32(index)}


class Recorded:
    """Batches whose row numbers are taken off and written down."""

    def __init__(self, batches, ledger):
        self.batches, self.ledger, self.step = batches, ledger, 0
        self.pause = float(os.environ.get("FAULTS_PAUSE", "0"))

    def set_state(self, state):
        self.batches.set_state(state)
        self.step = state["next_step"]
        self.write(begin=self.step)

    def write(self, **line):
        self.ledger.write(json.dumps(line) + "\n")
        self.ledger.flush()

    def __next__(self):
        batch = next(self.batches)
        time.sleep(self.pause)
        self.write(step=self.step, rows=batch.pop("row").tolist())
        self.step += 1
        return batch


def main(ledger: str, *argv: str) -> None:
    plain = train.batches

    def batches(rows, **options):
        file = Path(f"{ledger}.{jax.process_index()}").open("a")  # noqa: SIM115  till the end
        return Recorded(plain(Numbered(rows), **options), file)

    train.batches = batches
    sys.argv = ["ldd_jax", *argv]
    command_line.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
