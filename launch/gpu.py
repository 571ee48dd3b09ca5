"""What one GPU shows that no CPU can: speed, memory, kernels, agreement; as JSON and a table.

    python launch/gpu.py --output=DIR [--what=all|NAME,NAME] [--minutes=9] [--small]
    python launch/gpu.py --what=countdown --output=DIR [--minutes=9] [--updates=N]

Runs unattended. Each part is a process of its own with a share of the minutes left, so that one
that fails or hangs costs only itself; `gpu.json` and `gpu.md` are written anew after each. Parts:

- shares: where an MDLM update's time goes (trunk, head and loss, optimizer), and the update with
  layers unrolled, larger tiles of the head, recomputation;
- attention: every kernel's time and its distance from float32 truth;
- mdlm, lddm_m, ar: updates of configs/openwebtext.py:size=small (bfloat16, rows of 1,024) at the
  largest batch that fits; the batch is found from the compiler's memory at two smaller ones;
- sampling: tokens a second for T = 64 and 256, with and without the latent;
- torch: the same network in PyTorch (SDPA, torch.compile, bfloat16), where torch is installed;
- agreement: losses and sampled tokens of one network and one seed here and on the CPU; samples of
  a rule with an exact law against that law.

MFU: operations of an update, without recomputation, over its time and the published dense bfloat16
peak. `--small` shrinks everything for a trial on a CPU. countdown trains the published 6M recipes
for its share of the minutes each and goes on from there when called again with the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = ("shares", "attention", "mdlm", "lddm_m", "ar", "sampling", "torch", "agreement")
Record = dict[str, Any]


def run(flags: list[str], seconds: float) -> Record:
    """A part in its own process: its record, or what went wrong."""
    began = time.monotonic()
    command = [sys.executable, __file__, *flags]
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93"}
    # PyTorch needs the card to itself.
    env = {**memory, **os.environ, **({"JAX_PLATFORMS": "cpu"} if "--part=torch" in flags else {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(seconds, 1), env=env
        )
        record = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {seconds:.0f} s"}
    except (IndexError, json.JSONDecodeError):
        lines = done.stderr.strip().splitlines() or ["no output"]
        return {"error": lines[-1][:500], "stderr": lines[-40:]}
    return record | {"wall_s": time.monotonic() - began}


def rows(record: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    """Leaves of a record: where, what, and the figure."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from rows(value, (*path, key))
        elif key != "stderr":
            shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
            yield " ".join(path), key.replace("_", " "), shown


def write(folder: Path, found: Record) -> None:
    """gpu.json and gpu.md."""
    from ldd_jax.core import writing

    lines = ["| part | figure | value |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(found)]
    writing.write(folder / "gpu.json", json.dumps(found, indent=1) + "\n")
    writing.write(folder / "gpu.md", "\n".join(lines) + "\n")


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--what", default="all", help=f"all, countdown, or some of {','.join(PARTS)}"
    )
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--updates", type=int, default=0, help="of countdown; 0: the recipe's")
    parser.add_argument("--small", action="store_true")
    chosen = parser.parse_args()
    if chosen.part:  # JAX takes the card when it is imported: only here
        import gpu_parts

        print(json.dumps(gpu_parts.machine() | gpu_parts.part(chosen.part, chosen.small)))
        return
    end = time.monotonic() + 60 * chosen.minutes
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.what == "countdown":
        import gpu_countdown

        gpu_countdown.run(chosen.output, end, chosen.updates, chosen.small)
        return
    names = PARTS if chosen.what == "all" else tuple(chosen.what.split(","))
    if unknown := set(names) - set(PARTS):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; known: {', '.join(PARTS)}")
    found: Record = {}
    for name in names:
        flags = [f"--part={name}", f"--output={chosen.output}", *["--small"] * chosen.small]
        found[name] = run(flags, end - time.monotonic())
        write(chosen.output, found)
        said = found[name].get("error") or "done"
        print(f"{name}: {said} ({end - time.monotonic():.0f} s left)", flush=True)


if __name__ == "__main__":
    main()
