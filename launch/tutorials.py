"""Every tutorial as a reader of the site walks it: from an installed wheel, in an empty folder.

    python launch/tutorials.py [--folder=runs/tutorials] [--steps=20] [--pages=first_model,...]

A wheel is built of this repository; an environment of its own gets Jupyter's kernel. Then the
notebooks that `make docs` makes of the pages are executed in one folder, in the order of the site,
by that kernel. The first cell of each installs the wheel, as it would on Colab. `--steps` is the
variable STEPS of the pages; 0 trains as long as they say. FOLDER/NAME.ipynb keeps what each cell
printed. Prints a table of seconds; exit status 1 where a cell failed, or where what a page promises
was not printed or is not there. Needs a package index.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Runs in the environment of the walk, which has nbclient; this one need not.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
source, target, folder = sys.argv[1:]
book = nbformat.read(source, as_version=4)
client = NotebookClient(book, timeout=None, resources={"metadata": {"path": folder}})
try:
    client.execute()
except CellExecutionError as error:
    sys.exit(str(error)[-2000:])
finally:
    nbformat.write(book, target)
"""

# What the reader is promised to see, and what stands in the folder then.
PROMISED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "first_model": (
        ("unigram entropy", "an upper bound", "optim.lr", "quickstart"),
        ("runs/first/curve.png", "runs/first/summary.json", "runs/first/samples.jsonl"),
    ),
    "own_text": (("1 pass", "2 passes"), ("runs/mine/curve.png", "runs/mine/checkpoints")),
    "two_methods": (("carried",), ("runs/mdlm-0/summary.json", "runs/bench/frontier.html")),
    "sampler": (("calls",), ("runs/samplers/table.md", "runs/samplers/frontier.html")),
    "pretrained": (
        ("byte for byte", "the exact likelihood"),
        ("theirs/tokenizer.json", "runs/carried/summary.json", "out/model.safetensors"),
    ),
    "component": (("squared",), ("runs/squared/summary.json",)),
    "pod": (("parameters",), ("prepared",)),
}


def order() -> list[str]:
    """Names of the pages as the site's navigation has them."""
    return re.findall(r"^tutorials/(\w+)$", (ROOT / "docs" / "index.md").read_text(), re.M)


def notebooks(folder: Path) -> None:
    """All of them, as `make docs` writes them."""
    spec: Any = importlib.util.spec_from_file_location("books", ROOT / "docs" / "to_notebooks.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.write(folder)


def wheel(folder: Path) -> Path:
    """Of the working tree; its build leaves nothing there."""
    tree = folder / "source"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("ldd_jax", "configs"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=skip, dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", str(tree)]
    subprocess.run([*pip, "--wheel-dir", str(folder)], check=True)
    return next(folder.glob("*.whl"))


def lacking(page: str, book: Path, folder: Path) -> list[str]:
    """What a page promises and an executed notebook did not print, or its folder does not hold.

    Args:
      page: its name.
      book: the notebook with its outputs.
      folder: where it ran.
    """
    words, files = PROMISED[page]
    outputs = [o for c in json.loads(book.read_text())["cells"] for o in c.get("outputs", ())]
    said = "".join("".join(o.get("text", ())) for o in outputs)
    return [w for w in words if w not in said] + [f for f in files if not (folder / f).exists()]


def main() -> None:
    """Build, install, walk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/tutorials"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pages", default="")
    chosen = parser.parse_args()
    pages = chosen.pages.split(",") if chosen.pages else order()
    if wrong := [p for p in pages if p not in order()]:
        parser.error(f"no tutorial {wrong[0]}; there are {', '.join(order())}")
    folder = chosen.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{chosen.folder} is not empty")
    for name in ("books", "empty"):
        (folder / name).mkdir(parents=True)
    began = time.time()
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "nbclient", "ipykernel"], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"LDD_JAX": str(wheel(folder)), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    if chosen.steps:
        environment["STEPS"] = str(chosen.steps)
    notebooks(folder / "books")
    print(
        f"| page | seconds |\n|---|---|\n| (environment) | {time.time() - began:.0f} |", flush=True
    )
    failed = 0
    for page in pages:
        start = time.time()
        files = [str(folder / "books" / f"{page}.ipynb"), str(folder / f"{page}.ipynb")]
        run = [str(python), "-c", EXECUTE, *files, str(folder / "empty")]
        done = subprocess.run(run, env=environment, text=True, stderr=subprocess.PIPE)
        said = f" (failed: {done.stderr.strip()})" if done.returncode else ""
        if not said and (lost := lacking(page, folder / f"{page}.ipynb", folder / "empty")):
            said = f" (failed: no {', '.join(lost)})"
        failed += bool(said)
        print(f"| {page} | {time.time() - start:.0f} |{said}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
