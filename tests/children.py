"""Processes that tests start: with more devices, and the compiler's flags of this run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DEVICES = "--xla_force_host_platform_device_count"


def environment(devices: int) -> dict[str, str]:
    """This process's, with that many host devices; a child compiles as its parent does."""
    kept = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(DEVICES)]
    flags = " ".join([*kept, f"{DEVICES}={devices}"])
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def found(module: str, folder: Path, *more: str, devices: int = 8) -> Any:
    """What `python -m MODULE FOLDER MORE` writes into FOLDER/found.json."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder), *more],
        env=environment(devices),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())
