"""Figures whose code has changed: on a repository of four commits, made here."""

import importlib
import subprocess
import sys

import pytest

from tests.training.processes import ROOT

PAGE = """# Results

## Speed
    python launch/speed.py --folder=x \\
        --fast

Two seconds (2026-01-10).

| a | b |
|---|---|

Older: `python launch/other.py`, 2026-01-10.

## Quality
Nothing is run above this line, 2026-01-10.

```
python -m tool train --config=small:size=tiny
```
Good, 2026-01-10. And again, 2026-02-20.
"""


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("stale")


@pytest.fixture
def root(tmp_path, monkeypatch):
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]

    def commit(day, **written):
        for name, text in written.items():
            path = tmp_path / name.replace("__", "/")
            path = path.with_suffix(".md" if path.parent.name == "docs" else ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{day}T12:00:00+0000")
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)

    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__main__.py").write_text("import tool.deeper\n")
    commit(
        "2026-01-10",
        docs__page=PAGE,
        launch__speed="from tool import deeper\n",
        launch__other="x = 1\n",
        tool__deeper="a = 1\n",
        configs__small="s = 1\n",
    )
    commit("2026-01-11", launch__speed="from tool import deeper\nnew = 1\n")
    commit("2026-02-20", configs__small="s = 2\n")
    commit("2026-03-01", tool__deeper="a = 2\n")
    return tmp_path


def told(found):
    return {
        (f.figure.line, f.figure.date): (f.files, [c.split()[1] for c in f.commits]) for f in found
    }


def test_figures_with_their_commands_and_commits(script, root):
    found = told(script.findings(root, "docs/*.md"))
    both = ("configs/small.py", "tool/__main__.py")
    assert found == {
        (7, "2026-01-10"): (("launch/speed.py",), ["2026-01-11"]),
        (12, "2026-01-10"): (("launch/other.py",), []),
        (15, "2026-01-10"): ((), []),
        (20, "2026-01-10"): (both, ["2026-02-20"]),
        (20, "2026-02-20"): (both, []),
    }


def test_imports_count_when_asked(script, root):
    found = told(script.findings(root, "docs/*.md", deep=True))
    assert found[7, "2026-01-10"] == (
        ("launch/speed.py", "tool/deeper.py"),
        ["2026-03-01", "2026-01-11"],
    )
    assert found[20, "2026-02-20"][1] == ["2026-03-01"]


def test_the_table(script, root, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stale.py", f"--root={root}"])
    script.main()
    out = capsys.readouterr().out
    assert "| docs/page.md:7 | 2026-01-10 | launch/speed.py | 1 | " in out
    assert "page.md:12" not in out
    assert "2 of 5 figures are stale; 1 name no file." in out
