"""Files from strangers: no code of theirs runs, no header is believed, every reader answers."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data.subwords import SentencePiece
from ldd_jax.interop import sources
from tests.faults import fuzz

PACKAGE = Path(__file__).parents[2] / "ldd_jax"
MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "yaml", "joblib", "imp"}
CALLS = {"eval", "exec", "compile", "__import__"}


def dangers(source: str) -> list[str]:
    """Imports and calls that can run what a file says, by name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(node.func.id)
            for word in node.keywords:
                value = getattr(word.value, "value", None)
                if (word.arg, value) in (("allow_pickle", True), ("weights_only", False)):
                    found.append(f"{word.arg}={value}")
                if (word.arg, value) == ("trust_remote_code", True):
                    found.append("trust_remote_code")
    return found


def test_nothing_in_the_package_runs_what_a_file_says():
    found = {str(p): dangers(p.read_text()) for p in PACKAGE.rglob("*.py")}
    assert len(found) > 50
    assert {p: names for p, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from yaml import load", "eval('1')", "np.load(f, allow_pickle=True)",
     "torch.load(f, weights_only=False)", "def f():\n    import marshal"],
)  # fmt: skip
def test_the_scan_can_fail(source):
    assert dangers(source)


@pytest.mark.parametrize("number", range(len(fuzz.lying_headers())))
def test_safetensors_headers_that_lie(number, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(fuzz.lying_headers()[number])
    with pytest.raises(UserError):
        sources.read_safetensors(path)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x0a\xff\xff\xff\xff\x0f", b"\0" * 99])
def test_a_sentencepiece_file_that_is_none(data, tmp_path):
    path = tmp_path / "m.model"
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a SentencePiece model"):
        SentencePiece(model=str(path)).fit(lambda: ["text"])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "train-00000-of-00002"])
def test_manifests_name_no_other_place(name, tmp_path):
    fuzzer = fuzz.Fuzzer(tmp_path)
    target, (seed,) = fuzzer.targets["manifests"]
    tree = json.loads(seed)
    tree["splits"]["train"]["shards"][0]["file"] = name
    with pytest.raises(UserError, match="names a shard|is named"):
        target(json.dumps(tree).encode())


@pytest.mark.parametrize("name", fuzz.Fuzzer.NAMES)
def test_fuzz(name, tmp_path):
    """The short form of `make faults`."""
    tried, _ = fuzz.Fuzzer(tmp_path).run(name, 300, seconds=5)
    assert tried >= 20


def test_the_fuzzer_can_fail(tmp_path):
    fuzzer = fuzz.Fuzzer(tmp_path)
    fuzzer.targets["broken"] = (lambda data: json.loads(data), [b'{"a": 1}'])
    with pytest.raises(AssertionError, match="raised"):
        fuzzer.run("broken", 200)
