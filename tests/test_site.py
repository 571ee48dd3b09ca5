"""The site: what the navigation names, the reference made from the code, tutorials that run."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from tests.cli import tools

DOCS = tools.ROOT / "docs"
TAUGHT = ("tutorials", "howto", "concepts")

# What the pages say that shortens them.
STEPS = "20"


@pytest.fixture(scope="module")
def made():
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("generate")
    finally:
        sys.path.remove(str(DOCS))


def named(page: Path) -> list[Path]:
    """Pages that the toctrees of a page name."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [page.parent / f"{x}.md" for x in lines if x and not x.startswith(":")]


def prose(text: str) -> list[str]:
    """Lines of a page that are neither code nor tables."""
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S)
    return [x for x in text.splitlines() if x and not x.startswith(("    ", "|"))]


def test_the_navigation_names_every_page_and_no_other(made):
    there = {p for p in DOCS.rglob("*.md") if p.parent.name != "reference"}
    there |= {DOCS / "reference" / name for name in ("index.md", *made.PAGES)}
    found = [*named(DOCS / "index.md"), *named(DOCS / "reference" / "index.md")]
    assert len(found) == len(set(found))
    assert {*found, DOCS / "index.md"} == there


def test_links_lead_somewhere(made):
    lost = []
    for page in [tools.ROOT / "README.md", *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\(([^)\s'\"]+)\)", page.read_text()):
            file = (page.parent / link.partition("#")[0]).resolve()
            generated = file.parent.name == "reference" and file.name in made.PAGES
            if "://" not in link and not (generated or file.exists()):
                lost.append((page.name, link))
    assert not lost


def test_every_flag_and_field_has_a_sentence(made):
    flags, fields = list(made.flags()), list(made.fields())
    assert len(flags) > 100 and len(fields) > 100
    said = lambda x: len(x.meaning.split()) > 1 and x.meaning != "(no help available)"  # absl's
    silent = [(x.owner, x.name) for x in (*flags, *fields) if not said(x)]
    assert not silent


def test_the_reference_holds_them_all(made, tmp_path):
    made.write(tmp_path)
    commands, fields = ((tmp_path / f).read_text() for f in ("commands.md", "fields.md"))
    assert "| `--num_samples` | `int` |" in commands
    assert "## sample\n" in commands and "### process: masked\n" in fields
    assert "| `clip_norm` | `float` | `1.0` | largest global norm of a gradient" in fields
    rows = [x for x in (commands + fields).splitlines() if x.startswith("| `")]
    assert len(rows) == len([*made.flags(), *made.fields()])
    assert {len(re.findall(r"(?<!\\)\|", x)) for x in rows} == {5}
    links = re.findall(r"\(fields\.md#([\w-]+)\)", (tmp_path / "registry.md").read_text())
    assert len(links) > 50
    assert "pipeline.load" in (tmp_path / "python.md").read_text()


@pytest.mark.parametrize("folder", (*TAUGHT, "evidence", "."))
def test_lines_are_short(folder):
    """A command or an address may be longer, as it cannot be broken."""
    pages = sorted((DOCS / folder).glob("*.md"))
    assert pages
    unbroken = lambda x: re.sub(r"`[^`]*`|\]\([^)]*\)", "", x)
    lines = [(p.name, x) for p in pages for x in prose(p.read_text()) if len(x) > 100]
    assert not [(name, x) for name, x in lines if len(unbroken(x)) == len(x) or folder in TAUGHT]
    if folder == "howto":
        assert max(len(p.read_text().splitlines()) for p in pages) < 60


def test_prose_is_what_is_neither_code_nor_table():
    text = "a line\n```bash\ncode\n```\n    code\n| a | b |\nanother\n"
    assert prose(text) == ["a line", "another"]


TUTORIALS = [page.name for page in named(DOCS / "index.md") if page.parent.name == "tutorials"]


def typed(page: str) -> list[str]:
    """Commands of a tutorial, in order, as the shell reads them with STEPS set."""
    return [x for kind, text in blocks(page) if kind == "bash" for x in commands(text)]


def blocks(page: str) -> list[tuple[str, str]]:
    """What a tutorial asks to type and to write, in order: (bash or python, text)."""
    text = (DOCS / "tutorials" / page).read_text()
    return re.findall(r"```(bash|python)\n(.*?)```", text, re.S)


def commands(block: str) -> list[str]:
    lines = block.replace("\\\n", " ")
    return [re.sub(r"\$\{STEPS:-\d+\}", STEPS, x) for x in lines.splitlines() if x.strip()]
