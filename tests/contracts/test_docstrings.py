"""Docstrings say what every argument is: of all public functions with three or more of them."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MANY = 3
# Protocols and bases that describe a method for all who implement it, with the same arguments.
BASES = {
    "ldd_jax/core/logical.py": ["Layout"],
    "ldd_jax/core/types/objective.py": ["Objective"],
    "ldd_jax/core/types/network.py": ["Denoiser"],
    "ldd_jax/core/types/forward.py": ["Forward"],
    "ldd_jax/core/types/process.py": ["Process"],
    "ldd_jax/core/types/reverse.py": ["Reverse"],
    "ldd_jax/core/types/draw.py": ["Draw"],
    "ldd_jax/objectives/context.py": ["BatchGate", "PseudoContext"],
    "ldd_jax/objectives/nelbo.py": ["Nelbo"],
    "ldd_jax/objectives/times.py": ["Continuous"],
    "ldd_jax/processes/jumps.py": ["Jumps"],
    "ldd_jax/processes/score.py": ["MaskedScore"],
    "ldd_jax/samplers/base.py": ["Step"],
    "ldd_jax/samplers/net.py": ["Net"],
    "ldd_jax/samplers/corrector.py": ["Corrector"],
    "ldd_jax/tasks/base.py": ["Task"],
}


class Function(NamedTuple):
    """A public function or method: its class ("" = none), name, arguments and docstring."""

    owner: str
    name: str
    arguments: tuple[str, ...]
    doc: str

    @property
    def contract(self):
        """What an implementation shares with its base: shapes may stand in names of either."""
        return self.name, tuple(re.sub(r"_[A-Z]+$", "", a) for a in self.arguments)

    def unnamed(self):
        """Arguments that the docstring does not name."""
        named = lambda a: re.search(rf"(?<![\w']){re.escape(a)}(?![\w'])", self.doc)
        return [a for a in self.arguments if not named(a)]


def functions(body, owner=""):
    """Public functions of a module and methods of its public classes that have many arguments."""
    for node in body:
        public = not node.name.startswith("_") if hasattr(node, "name") else False
        if isinstance(node, ast.ClassDef) and public:
            yield from functions(node.body, node.name)
        elif isinstance(node, ast.FunctionDef) and (public or node.name == "__call__"):
            own = node.args
            names = [a.arg for a in (*own.posonlyargs, *own.args, *own.kwonlyargs)]
            given = tuple(n for n in names if n not in ("self", "cls"))
            if len(given) >= MANY:
                yield Function(owner, node.name, given, ast.get_docstring(node) or "")


def complaints(sources, bases):
    """Lines about arguments that nobody describes, of {path: source}."""
    found = {path: list(functions(ast.parse(text).body)) for path, text in sources.items()}
    based = [f for path, some in found.items() for f in some if f.owner in bases.get(path, [])]
    told = {f.contract for f in based if not f.unnamed()}
    for path, some in found.items():
        for f in some:
            if f.unnamed() and not (f.owner and f.contract in told):
                yield f"{path}: {f.owner}.{f.name}: {', '.join(f.unnamed())}"


def package():
    """The package's sources by path."""
    return {str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / "ldd_jax").rglob("*.py")}


def test_arguments_are_described():
    assert list(complaints(package(), BASES)) == []


def test_bases_are_there():
    found = package()
    for path, names in BASES.items():
        owners = {f.owner for f in functions(ast.parse(found[path]).body)}
        assert set(names) <= owners, path


GOOD = '''
class Rule:
    def step(self, z_N, t, s):
        """Args: `z_N`, t, s."""
class Mine:
    def step(self, z, t, s):
        """As ever."""
def move(z, t, s=None):
    """Args:
      z: tokens. t: time. s: another."""
def _hidden(a, b, c): ...
def short(a, b): ...
'''
BAD = '''
class Mine:
    def step(self, z, t, other):
        """It isn't z."""
    def __call__(self, a_B, b, *, c): ...
def step(z, t, s):
    """No method of a base: z."""
'''


def test_the_check_can_fail():
    bases = {"good.py": ["Rule"]}
    assert list(complaints({"good.py": GOOD}, bases)) == []
    assert list(complaints({"good.py": GOOD}, {})) == ["good.py: Mine.step: z, t, s"]
    assert list(complaints({"good.py": GOOD, "bad.py": BAD}, bases)) == [
        "bad.py: Mine.step: t, other",
        "bad.py: Mine.__call__: a_B, b, c",
        "bad.py: .step: t, s",
    ]
