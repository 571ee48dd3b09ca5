"""Files from strangers: no code of theirs runs, no header is believed, every reader answers."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from ldd_jax.core.checks import UserError, one_line
from ldd_jax.data.sentencepieces import SentencePiece
from ldd_jax.interop import sources
from tests.cli import tools
from tests.cli.test_refusals import refused
from tests.faults import fuzz
from tests.faults.workdirs import Workdirs

PACKAGE = Path(__file__).parents[2] / "ldd_jax"
MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "imp"}
CALLS = {"eval", "exec", "compile", "__import__"}
# Ways to run a file or a module by its name; the user's own code has one door.
RUNS = {"exec_module", "load_module", "import_module", "run_path", "run_module", "source_to_code"}
DOOR = {
    "config/loading.py": ["exec_module", "import_module"],
    "data/python_docs.py": ["import_module"],  # a name that stands in the code
    "interop/retyped.py": ["run_path"],  # recipes that come along, by their own names
}
YAML = {"safe_load", "safe_dump", "YAMLError"}  # its other readers make objects that a file names


def dangers(source: str) -> list[str]:
    """Imports and calls that can run what a file says, by name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "yaml":
            found += [f"yaml.{a.name}" for a in node.names if a.name not in YAML]
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "yaml":
            found += [f"yaml.{node.attr}"] if node.attr not in YAML else []
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(node.func.id)
            if isinstance(node.func, ast.Attribute) and node.func.attr in RUNS:
                found.append(node.func.attr)
            for word in node.keywords:
                value = getattr(word.value, "value", None)
                if (word.arg, value) in (("allow_pickle", True), ("weights_only", False)):
                    found.append(f"{word.arg}={value}")
                if (word.arg, value) == ("trust_remote_code", True):
                    found.append("trust_remote_code")
    return found


def test_nothing_in_the_package_runs_what_a_file_says():
    found = {str(p.relative_to(PACKAGE)): dangers(p.read_text()) for p in PACKAGE.rglob("*.py")}
    assert len(found) > 50
    assert {p: sorted(names) for p, names in found.items() if names} == DOOR


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from yaml import load", "yaml.load(f)", "yaml.full_load(f)", "eval('1')",
     "np.load(f, allow_pickle=True)", "torch.load(f, weights_only=False)",
     "def f():\n    import marshal", "importlib.import_module(name)", "runpy.run_path(file)"],
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
    fuzzer = fuzz.Fuzzer(tmp_path, False)
    target, (seed,) = fuzzer.targets["manifests"]
    tree = json.loads(seed)
    tree["splits"]["train"]["shards"][0]["file"] = name
    with pytest.raises(UserError, match="names a shard|is named"):
        target(json.dumps(tree).encode())


class Evil:
    """Leaves a mark when it is unpickled the ordinary way."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(params=[2, 4], ids=lambda p: f"protocol {p}")
def pickled(request, tmp_path):
    """A pickle that runs code, and the folder that tells whether it did."""
    mark = tmp_path / "ran"
    data = pickle.dumps({"state_dict": Evil(mark)}, request.param)
    pickle.loads(data)
    mark.rmdir()  # it works
    return data, mark


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("packed", [False, True], ids=["bare", "archive"])
def test_a_pickle_given_as_checkpoint(name, packed, pickled, tmp_path):
    """With torch its weights-only reader refuses it, without torch nothing reads it."""
    data, mark = pickled
    path = tmp_path / name
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3")
            archive.writestr("../../escaped", "outside")
    else:
        path.write_bytes(data)
    given = ("import", path, "--method=mdlm", f"--workdir={tmp_path / 'run'}")
    refused(tools.call(*given), "" if not packed else name)
    assert not mark.exists() and not (tmp_path / "run").exists()
    assert not any(tmp_path.parent.parent.glob("escaped"))


@pytest.mark.parametrize("name", fuzz.Fuzzer.NAMES)
def test_a_pickle_given_to_every_reader(name, pickled, tmp_path):
    data, mark = pickled
    fuzzer = fuzz.Fuzzer(tmp_path / "fuzz", name in Workdirs.NAMES)
    with contextlib.suppress(UserError):
        fuzzer.targets[name][0](data)
    assert not mark.exists()


@pytest.mark.parametrize("claim", ["packed", "lie"])
def test_archives_that_swell(claim, tmp_path):
    """A megabyte of zeros in a kilobyte, and a directory that says 4 GB."""
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20 if claim == "packed" else 4))
    if claim == "lie":
        data = bytearray(path.read_bytes())
        at = data.index(b"PK\x01\x02") + 24  # the unpacked size in the central directory
        data[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
        path.write_bytes(data)
    out = tools.call("import", path, "--method=mdlm", f"--workdir={tmp_path / 'run'}")
    refused(out, "claims to hold", "1,048,576" if claim == "packed" else "4,294,967,294")
    assert not (tmp_path / "run").exists()


def test_what_files_say_is_shown_as_one_line():
    said = one_line(UserError("a\n\x1b]0;title\x07 \ud800\u202e" + "x" * 10**6))
    assert said.isprintable() and said.startswith("a \\x1b]0;title\\x07 \\ud800\\u202ex")
    assert len(said) == 3000 and said.endswith(" ...")


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.Fuzzer.NAMES)
def test_fuzz(name, tmp_path):
    """The short form of `make faults`."""
    fuzzer = fuzz.Fuzzer(tmp_path, name in Workdirs.NAMES)
    tried, _ = fuzzer.run(name, 300, seconds=5)
    assert tried >= min(20, 300 // fuzzer.SLOW.get(name, 1))


def test_the_fuzzer_can_fail(tmp_path):
    fuzzer = fuzz.Fuzzer(tmp_path, False)
    fuzzer.targets["broken"] = (lambda data: json.loads(data), [b'{"a": 1}'])
    with pytest.raises(AssertionError, match="raised"):
        fuzzer.run("broken", 200)
