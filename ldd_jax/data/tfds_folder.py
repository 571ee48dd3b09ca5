"""A prepared TFDS folder, opened so that nothing that its files name is imported.

TFDS makes the features of a folder from the classes that `features.json` names, and imports the
modules of those that it does not know, also from the current folder. A folder may be a stranger's
(`data.path` of a workdir), so every name is looked at first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldd_jax.core.checks import UserError, parse_json, require

OWN = "tensorflow_datasets."
# Keys of a class: in TFDS's JSON, as a protocol buffer spells it, and in the form before.
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_DEEPEST = 30


def open_folder(folder: Path, name: str) -> Any:
    """The builder that reads `folder`; `name` is what messages call it.

    Raises:
      UserError: if it is no prepared data set, or names a class that is not TFDS's own.
    """
    import tensorflow_datasets as tfds

    require((folder / "dataset_info.json").is_file(), f"{name}: no dataset_info.json there")
    check_classes(folder / "features.json", name)
    try:
        return tfds.builder_from_directory(str(folder))
    except Exception as error:  # of many types, those of protocol buffers among them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} is no data set that TFDS can read ({reason})") from error


def check_classes(file: Path, name: str) -> None:
    """Refuse a features.json with a class that is not TFDS's own, at any depth.

    Raises:
      UserError: naming the class.
    """
    try:
        tree = parse_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: features.json cannot be read: {error}") from error
    for found in _classes(tree, 0, name):
        parts = found.removeprefix(OWN).split(".")
        require(
            found.startswith(OWN) and all(map(str.isidentifier, parts)),
            f"{name}: features.json names the class {found!r}; only those of {OWN[:-1]} are made, "
            "because TFDS would run the module of any other",
        )


def _classes(tree: Any, depth: int, name: str) -> Iterator[str]:
    """Every class name; TFDS keeps parts of a feature as JSON in a string of JSON."""
    require(depth < _DEEPEST, f"{name}: features.json is nested too deep")
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in CLASS_KEYS and isinstance(value, str):
                yield value
            else:
                yield from _classes(value, depth + 1, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _classes(value, depth + 1, name)
    elif isinstance(tree, str) and any(c in tree for c in "{["):
        try:
            inside = parse_json(tree)
        except ValueError:
            return
        yield from _classes(inside, depth + 1, name)
