"""The tutorials as notebooks: valid, and with the commands of their page in order."""

from __future__ import annotations

import importlib
import json
import re
import sys

import nbformat
import pytest

from tests.test_site import DOCS, typed

PAGES = sorted(p.name for p in (DOCS / "tutorials").glob("*.md"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Page -> notebook, as `make docs` writes them."""
    sys.path.insert(0, str(DOCS))
    try:
        write = importlib.import_module("to_notebooks").write
    finally:
        sys.path.remove(str(DOCS))
    files = write(tmp_path_factory.mktemp("notebooks"))
    return {f"{file.stem}.md": json.loads(file.read_text()) for file in files}


def sources(notebook, magic):
    """Cells that begin with a magic, without that line."""
    texts = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    return [t.partition("\n")[2] for t in texts if t.startswith(magic)]


def test_every_tutorial_is_one(made):
    assert sorted(made) == PAGES and len(PAGES) > 5


@pytest.mark.parametrize("page", PAGES)
def test_it_is_valid_and_holds_the_page(made, page):
    notebook = made[page]
    nbformat.validate(nbformat.from_dict(notebook))
    identities = [cell["id"] for cell in notebook["cells"]]
    assert len(identities) == len(set(identities))
    # The commands, as the test of the site types them.
    bash = "\n".join(sources(notebook, "%%bash -e\n")).replace("\\\n", " ")
    lines = [re.sub(r"\$\{STEPS:-\d+\}", "20", x) for x in bash.splitlines() if x.strip()]
    assert lines == typed(page) and lines
    # The files, and every word of the prose.
    text = (DOCS / "tutorials" / page).read_text()
    written = re.findall(r"```python\n(.*?)```", text, re.S)
    assert [f"{x}\n" for x in sources(notebook, "%%writefile")] == written
    prose = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] != "code")
    there = re.sub(r"```.*?```", "", text, flags=re.S)
    bare = re.sub(r"\[([^\]]*)\]\((?!http)[^)]*\)", r"\1", there)
    assert [w for w in bare.split() if w not in prose.split()] == []
    assert "](" not in re.sub(r"\]\(http", "", prose)


def test_one_cell_installs(made):
    for notebook in made.values():
        kinds = [cell["cell_type"] for cell in notebook["cells"]]
        assert kinds[:2] == ["markdown", "code"]
        first = "".join(notebook["cells"][1]["source"])
        assert first.count("%pip install") == 1
        *code, last = first.splitlines()
        compile("\n".join(code), "install", "exec")
        assert last == '%pip install --quiet "{source}{extra}"'
