"""Every command that a page shows can be typed: its flags and config files exist."""

from __future__ import annotations

import re
import shlex

import pytest

from ldd_jax.main import COMMANDS, parse
from tests.cli import tools

BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.M | re.S)


def commands(source: str) -> list[list[str]]:
    """Arguments of every `python -m ldd_jax ...` or `ldd-jax ...` line, continuations joined."""
    out = []
    for line in source.replace("\\\n", " ").splitlines():
        found = re.search(r"(?:python3?\s+-m\s+ldd_jax|\bldd-jax)\s+(.*)", line)
        if found:
            out.append(shlex.split(found[1], comments=True))
    return out


def shown() -> list[tuple[str, list[str]]]:
    """(where, arguments) in the README, the docs, the Makefile and the configs' headers."""
    out = []
    for page in sorted([*tools.ROOT.glob("README.md"), *tools.ROOT.glob("docs/*.md")]):
        text = page.read_text()
        out += [(page.name, c) for block in BLOCK.findall(text) for c in commands(block)]
    makefile = (tools.ROOT / "Makefile").read_text().replace("$(WORKDIR)", "DIR")
    out += [("Makefile", c) for c in commands(makefile)]
    for config in sorted((tools.ROOT / "configs").glob("*.py")):
        header = config.read_text().split('"""')[1]
        # A remark after the command is set apart by two blanks or more and a parenthesis.
        out += [(config.name, c) for c in commands(re.sub(r" {2,}\(.*\)", "", header))]
    return out


@pytest.mark.parametrize(("where", "argv"), [pytest.param(*s, id=f"{s[0]}-{i}")
                                             for i, s in enumerate(shown())])  # fmt: skip
def test_command_parses(where, argv, monkeypatch):
    monkeypatch.chdir(tools.ROOT)
    if argv[0] in ("COMMAND", "--help", "--version"):
        return
    # {a,b} and [options] stand for the reader's choice.
    assert argv[0] in COMMANDS, f"{where}: {argv}"
    parse(argv[0], COMMANDS[argv[0]], argv[1:])


def test_commands_are_found():
    """The list above is not empty, whatever happens to the pages."""
    assert {"Makefile", "quickstart.py", "openwebtext.py"} <= {where for where, _ in shown()}
    block = "```bash\npython -m ldd_jax train \\\n  --workdir=x  # why\n```\n"
    assert [commands(b) for b in BLOCK.findall(block)] == [[["train", "--workdir=x"]]]
