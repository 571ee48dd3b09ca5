"""All drills, tests of faults and fuzzing, as a table: python -m tests.faults (make faults).

Two lanes, for two cores: the drills here, tests and fuzzing in a process beside.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.faults import beside, drill, kills

# In 25 minutes on two cores; the fuzzer gets at least 100,000 inputs in all.
KILLS, STOPS, INPUTS = 20, 6, 6000

Drill = Callable[[], "drill.Row | list[drill.Row]"]


def attempt(name: str, run: Drill) -> list[drill.Row]:
    """What `run` returns; a row that says so where it fails."""
    began = time.monotonic()
    try:
        found = run()
        rows = found if isinstance(found, list) else [found]
    except (Exception, SystemExit) as error:  # whatever it is, the other drills are still run
        rows = [drill.Row(name, 1, f"FAILED: {type(error).__name__}: {str(error)[:2000]}")]
    for row in rows:
        print(row, flush=True)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def main() -> int:
    began = time.monotonic()
    rows: list[drill.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(folder) / "compiled")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as lane:
            tested, tried = lane.submit(beside.tested), lane.submit(beside.fuzzed, INPUTS)
            arena = drill.Arena(Path(folder))
            print(f"left alone: {time.monotonic() - began:.0f} s", flush=True)
            drills: dict[str, Drill] = {
                "SIGKILL": lambda: kills.sigkill(arena, KILLS),
                "SIGTERM, SIGINT": lambda: kills.sigterm(arena, STOPS),
                "SIGTERM to one of two processes": lambda: kills.one_of_two(arena, drill.SIGTERM),
                "SIGKILL to one of two processes": lambda: kills.one_of_two(arena, drill.SIGKILL),
                "other numbers of devices": lambda: kills.other_devices(arena),
                "tests": tested.result,
                "fuzzed inputs": tried.result,
            }
            for name, run in drills.items():
                rows += attempt(name, run)
    print("\n| fault | times tried | outcome | lost steps | lost examples |\n|---|---|---|---|---|")
    for r in rows:
        said = " ".join(r.outcome.split())[:300]
        lost = ["-" if n is None else n for n in (r.lost_steps, r.lost_examples)]
        print(f"| {r.fault} | {r.tried:,} | {said} | {lost[0]} | {lost[1]} |")
    failed = sum(row.failed for row in rows)
    used = sum(os.times()[:4]) / 60  # on a loaded machine the better measure
    minutes = (time.monotonic() - began) / 60
    print(f"\n{minutes:.1f} minutes ({used:.1f} of processor time), {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
