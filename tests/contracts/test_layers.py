"""Rooms: what each is for, and imports that go strictly downward, never between siblings."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ldd_jax"
# From the ground up. Whatever a room may import stands before it in the list.
ORDER = [
    {"core"},
    {"schedules", "tasks", "targets"},
    {"processes", "denoisers", "data"},
    {"objectives", "samplers"},
    {"training", "evaluation", "oracle"},
    {"config"},
    {"inference"},
    {"planning"},
    {"runs"},
    {"interop", "bench", "report"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def room(parts):
    """The room that a dotted path below the package belongs to."""
    return parts[0] if parts and not parts[0].startswith("__") else None


def imports(tree, here):
    """Rooms imported anywhere in a module, functions included."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(["ldd_jax", *here[: len(here) - node.level], base]).strip(".")
            names = [f"{base}.{a.name}" for a in node.names] if base == "ldd_jax" else [base]
        for name in names:
            if name.split(".")[0] == "ldd_jax":
                yield room(name.split(".")[1:])


def wrong_edges(sources):
    """(file, imported room) of every edge that is not strictly downward."""
    out = []
    for path, text in sources.items():
        here = Path(path).with_suffix("").parts
        own = room(here)
        for other in imports(ast.parse(text), here):
            if other in (None, own):
                continue
            if other not in LEVEL or own not in LEVEL or LEVEL[other] >= LEVEL[own]:
                out.append((path, other))
    return out


def test_no_upward_or_sideways_import():
    files = {str(p.relative_to(PACKAGE)): p.read_text() for p in PACKAGE.rglob("*.py")}
    files = {n: t for n, t in files.items() if n not in ("__init__.py", "__main__.py")}
    assert len(files) > 20
    assert wrong_edges(files) == []


@pytest.mark.parametrize(
    "path, line, bad",
    [
        ("core/a.py", "from ldd_jax.schedules import X", True),
        ("processes/a.py", "import ldd_jax.denoisers.dit", True),
        ("samplers/a.py", "from ldd_jax import objectives", True),
        ("samplers/a.py", "def f():\n    from ..training import step", True),
        ("training/a.py", "from ldd_jax.evaluation.x import y", True),
        ("samplers/a.py", "from ldd_jax.processes import Masked", False),
        ("samplers/a.py", "from .base import Net\nfrom ldd_jax.samplers.loop import sample", False),
        ("config/a.py", "from ldd_jax.inference import pipeline", True),
        ("interop/a.py", "from ldd_jax.bench import cells", True),
        ("training/a.py", "from ldd_jax.config.experiment import Experiment", True),
        ("cli/commands/a.py", "from ldd_jax.interop import card", False),
        ("newcomer/a.py", "from ldd_jax.core import draws", True),
    ],
)
def test_the_rule_can_fail(path, line, bad):
    assert bool(wrong_edges({path: line})) == bad


def loose(names):
    """Modules at the package's root that have no business there."""
    return sorted(set(names) - {"__init__.py", "__main__.py", "schedules.py"})


def test_no_module_stands_outside_a_room():
    assert loose(p.name for p in PACKAGE.glob("*.py")) == []
    assert loose(["schedules.py", "harness.py"]) == ["harness.py"]
    rooms = {p.parent.name for p in PACKAGE.glob("*/__init__.py")} | {"schedules"}
    assert rooms == set(LEVEL)


def test_every_room_says_what_it_is_for():
    """In one sentence, at the top of its folder."""
    folders = {p.parent for p in PACKAGE.rglob("*.py")}
    assert len(folders) > 15
    for folder in folders:
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert said and "\n" not in said and said.endswith("."), folder


def test_flax_modules_stay_with_the_denoisers():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "denoisers":
            assert not re.search(r"\blinen\b", path.read_text()), path


def test_a_run_begins_without_what_only_pictures_and_tables_need():
    """matplotlib and scipy take a third of the time that all other imports take together."""
    late = "{'matplotlib', 'scipy', 'tensorflow', 'transformers', 'torch'}"
    code = f"import sys, ldd_jax.runs.train; sys.exit(', '.join({late} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
