"""Every command that a page shows can be typed: its flags and config files exist."""

from __future__ import annotations

import re
import runpy
import shlex

import pytest

from ldd_jax.cli.main import COMMANDS, parse
from ldd_jax.config import packaged, recipes, stored
from tests.cli import tools

# Fenced or indented.
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```|((?:^    [^\n]*\n)+)", re.M | re.S)

# Of a variable of the shell that shortens a page: what stands there without it.
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")

# Set apart from its command by two blanks or more.
REMARK = re.compile(r" {2,}\([^\n]*\)")


def commands(source: str) -> list[list[str]]:
    """Arguments of every `python -m ldd_jax ...` or `ldd-jax ...` line, continuations joined."""
    out = []
    for line in source.replace("\\\n", " ").splitlines():
        line = DEFAULT.sub(r"\1", line)
        found = re.search(r"(?:python3?\s+-m\s+ldd_jax|\bldd-jax)\s+(.*)", line)
        if found:
            out.append(shlex.split(found[1], comments=True))
    return out


def blocks(text: str) -> list[str]:
    """Code of a page."""
    return ["".join(found) for found in BLOCK.findall(text)]


def shown() -> list[tuple[str, list[str]]]:
    """(where, arguments) in the README, the docs, the Makefile and the configs' headers."""
    out = []
    pages = [*tools.ROOT.glob("README.md"), *tools.ROOT.glob("docs/**/*.md")]
    for page in sorted(p for p in pages if p.name == "index.md" or p.parent.name != "reference"):
        text = page.read_text()
        found = [c for block in blocks(text) for c in commands(REMARK.sub("", block))]
        out += [(page.name, c) for c in found if not {"...", "--config=...", "COMMAND"} & {*c}]
    makefile = (tools.ROOT / "Makefile").read_text().replace("$(WORKDIR)", "DIR")
    out += [("Makefile", c) for c in commands(makefile)]
    for config in sorted((tools.ROOT / "configs").glob("*.py")):
        header = config.read_text().split('"""')[1]
        out += [(config.name, c) for c in commands(REMARK.sub("", header))]
    return out


@pytest.mark.parametrize(("where", "argv"), [pytest.param(*s, id=f"{s[0]}-{i}")
                                             for i, s in enumerate(shown())])  # fmt: skip
def test_command_parses(where, argv, monkeypatch, tmp_path):
    monkeypatch.chdir(tools.ROOT)
    if "from=" in " ".join(argv):  # a config that reads the one of a run
        first = "ar" if re.search(r"\badapt(\.py)?:", " ".join(argv)) else "mdlm"
        network = "llama" if where in ("pretrained.md", "adapt.py") else ""
        base = recipes.make({"method": first, "size": "tiny", "network": network})
        # A student of a run with a signal; the diffusion of what an autoencoder makes.
        own = where.split(".")[0]
        if own in ("joint", "latent_diffusion"):
            base = runpy.run_path(str(packaged.path(own)))["get_config"]()
        stored.save_config(base, tmp_path)
        argv = [re.sub(r"from=[^,]+", f"from={tmp_path}", a) for a in argv]
    if argv[0] in ("COMMAND", "--help", "--version"):
        return
    # {a,b} and [options] stand for the reader's choice.
    assert argv[0] in COMMANDS, f"{where}: {argv}"
    # Files that the page shows; tests/test_docs.py runs them.
    if any(re.search(r"\bmy_\w+\.py", a) for a in argv):
        argv = [a for a in argv if not a.startswith(("--config", "--plugin"))]
    parse(argv[0], COMMANDS[argv[0]], packaged.spelled_out(argv[1:]))


def test_commands_are_found():
    """The list above is not empty, whatever happens to the pages."""
    assert {"Makefile", "quickstart.py", "openwebtext.py"} <= {where for where, _ in shown()}
    block = "```bash\npython -m ldd_jax train \\\n  --workdir=x  # why\n```\n"
    indented = "    python -m ldd_jax train \\\n        --workdir=x  # why\n"
    for text in (block, indented):
        assert [commands(b) for b in blocks(text)] == [[["train", "--workdir=x"]]], text
