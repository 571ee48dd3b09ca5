"""Figures in the pages whose command's code has changed since their date.

    python launch/stale.py [--root=.] [--pages='docs/**/*.md'] [--deep] [--all]

A figure is a paragraph with a date (2026-11-26). Its commands are those in the paragraph itself,
else the ones shown above it in its section. A command names files: scripts, modules, recipes.
A commit on the day of the figure itself is taken to come before it. `--deep` follows the imports
of those files inside the repository: then nearly any change counts. `--all` lists figures whose
code has not changed, too.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
COMMAND = re.compile(r"(?:^|[\s`(])((?:python3?|make) [^`\n]+)")


@dataclasses.dataclass(frozen=True)
class Figure:
    """A dated paragraph and the commands that it came from."""

    page: str
    line: int
    date: str
    commands: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A figure, the files of its commands, and the commits that have changed them since."""

    figure: Figure
    files: tuple[str, ...]
    commits: tuple[str, ...]  # hash and day, newest first


def paragraphs(text: str) -> Iterator[tuple[int, str, bool]]:
    """(line, text, whether it is code) of each part of a page."""
    fenced, start, held = False, 1, []  # type: ignore[var-annotated]
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        indented = line.startswith("    ") and not fenced
        broken = fence or (not line.strip() and not fenced) or line.startswith("#") and not fenced
        changed = bool(held) and not fenced and indented != held[-1].startswith("    ")
        if held and (broken or changed):
            yield start, "\n".join(held), fenced or held[0].startswith("    ")
            held = []
        if fence:
            fenced = not fenced
            continue
        if line.startswith("#") and not fenced:
            yield number, line, False
        elif line.strip() or fenced:
            start = start if held else number
            held.append(line)


def figures(page: str, text: str) -> Iterator[Figure]:
    """The dated paragraphs of a page."""
    shown: list[str] = []
    for line, part, code in paragraphs(text):
        if part.startswith("#") and not code:
            shown = []
            continue
        found = COMMAND.findall(part.replace("\\\n", " "))
        if code:
            shown += found
            continue
        for date in sorted(set(DATE.findall(part))):
            yield Figure(page, line, date, tuple(found or shown))


def files(root: Path, command: str) -> set[str]:
    """Paths in the repository that a command names."""
    words = command.replace("=", " ").replace(":", " ").replace(",", " ").split()
    found = set()
    for before, word in zip(["", *words], words):
        candidates = [word, f"configs/{word}.py"] if before == "--config" else [word]
        if before == "-m":
            path = word.replace(".", "/")
            after = words[words.index(word) + 1 :][:1]
            candidates = [f"{path}/cli/commands/{a.replace('-', '_')}.py" for a in after]
            if not any((root / c).is_file() for c in candidates):
                candidates = [f"{path}.py", f"{path}/__main__.py"]
        found |= {c for c in candidates if c.endswith(".py") and (root / c).is_file()}
    return found


def imported(root: Path, file: str) -> set[str]:
    """Files of the repository that a file imports, and those that they import."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        for node in ast.walk(ast.parse((root / at).read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            for name in names:
                path = name.replace(".", "/")
                beside = str(Path(at).parent / path)
                for c in (f"{path}.py", f"{path}/__init__.py", f"{beside}.py"):
                    if (root / c).is_file():
                        waiting.append(str(Path(c)))
    return seen


def commits(root: Path, paths: set[str], date: str) -> tuple[str, ...]:
    """Commits after the day `date` that touch any of the files, as `hash day`, newest first."""
    if not paths:
        return ()
    git = ["git", "-C", str(root), "log", "--format=%h %cs", "--", *sorted(paths)]
    lines = subprocess.run(git, check=True, capture_output=True, text=True).stdout.splitlines()
    return tuple(line for line in lines if line.split()[1] > date)


def findings(root: Path, pages: str, deep: bool = False) -> Iterator[Finding]:
    """All figures of the pages, with what has changed.

    Args:
      root: of the repository.
      pages: a glob from there.
      deep: whether what the named files import counts as well.
    """
    for page in sorted(root.glob(pages)):
        for figure in figures(str(page.relative_to(root)), page.read_text()):
            named = set().union(*(files(root, c) for c in figure.commands))
            if deep:
                named = set().union(*(imported(root, f) for f in named))
            yield Finding(figure, tuple(sorted(named)), commits(root, named, figure.date))


def table(found: list[Finding]) -> str:
    """Markdown, a line for each figure."""
    out = ["| page | date | files | commits since | last change |", "|---|---|---|---|---|"]
    for one in found:
        where = f"{one.figure.page}:{one.figure.line}"
        named = ", ".join(one.files[:3]) + (", ..." if len(one.files) > 3 else "")
        last = one.commits[0] if one.commits else ""
        named = named or "no command is named"
        out.append(f"| {where} | {one.figure.date} | {named} | {len(one.commits)} | {last} |")
    return "\n".join(out)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--pages", default="docs/**/*.md")
    parser.add_argument("--deep", action="store_true", help="follow imports")
    parser.add_argument("--all", action="store_true", help="figures that still stand as well")
    given = parser.parse_args()
    found = list(findings(given.root.resolve(), given.pages, given.deep))
    stale = [f for f in found if f.commits]
    nameless = sum(not f.files for f in found)
    print(table(found if given.all else stale))
    print(f"\n{len(stale)} of {len(found)} figures are stale; {nameless} name no file.")


if __name__ == "__main__":
    main()
