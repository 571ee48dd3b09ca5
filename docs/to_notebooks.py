"""The tutorials as notebooks: one Markdown, two forms, made anew whenever the site is built.

python docs/to_notebooks.py FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).resolve().parent / "tutorials"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n", re.M | re.S)
FILE = re.compile(r"# (\w+\.py)\n")
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")

INTRODUCTION = """\
Run the cell below once. It installs the package with JAX for what is here: GPU, TPU or CPU.
On Colab, choose the kind of machine in *Runtime*, *Change runtime type* first.
`LDD_JAX` in the environment names another source: a wheel, or a folder with the repository.
Pages that a tutorial calls earlier ones leave files that it needs: run them in the same folder.
"""

# A `%pip` line gives IPython the values of names in braces.
INSTALL = """\
import glob
import os
import shutil

source = os.environ.get("LDD_JAX", "ldd-jax")
gpu = shutil.which("nvidia-smi") is not None
tpu = bool(glob.glob("/dev/accel*")) or "TPU_ACCELERATOR_TYPE" in os.environ
extra = "[cuda]" if gpu else "[tpu]" if tpu else ""
%pip install --quiet "{source}{extra}"
"""


def cells(page: str) -> list[tuple[str, str]]:
    """(kind, source) of a tutorial's cells, in order, the installing one first.

    A block of commands is one cell of bash, which stops at the first that fails; a block of Python
    that begins with a file's name writes the file.

    Args:
      page: the Markdown.
    """
    heading, _, rest = page.partition("\n")
    out = [("markdown", f"{heading}\n\n{INTRODUCTION}"), ("code", INSTALL)]
    done, files = 0, set()
    for found in BLOCK.finditer(rest):
        out.append(("markdown", _plain(rest[done : found.start()])))
        kind, text = found.groups()
        if name := FILE.match(text):
            again = "-a " if name[1] in files else ""
            files.add(name[1])
            text = f"%%writefile {again}{name[1]}\n{text}"
        elif kind == "bash":
            text = f"%%bash -e\n{text}"
        out.append(("code", text))
        done = found.end()
    out.append(("markdown", _plain(rest[done:])))
    return [(kind, text.strip("\n")) for kind, text in out if text.strip()]


def _plain(text: str) -> str:
    """Markdown without links to other pages, which a notebook does not have beside it."""
    return LINK.sub(r"\1", text)


def notebook(page: str) -> dict[str, Any]:
    """A notebook of format 4.5, without outputs; the same for the same page.

    Args:
      page: the Markdown.
    """
    made = []
    for i, (kind, text) in enumerate(cells(page)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        made.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": made,
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write(folder: Path) -> list[Path]:
    """All of them, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for page in sorted(TUTORIALS.glob("*.md")):
        text = json.dumps(notebook(page.read_text()), indent=1, ensure_ascii=False) + "\n"
        file = folder / f"{page.stem}.ipynb"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        out.append(file)
    return out


if __name__ == "__main__":
    write(Path(sys.argv[1]))
