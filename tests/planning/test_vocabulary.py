"""Without --vocabulary, a plan takes the tokens of the config, not GPT-2's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ldd_jax.cli.commands.plan import ASSUMED, vocabulary
from ldd_jax.core import registry

ROOT = Path(__file__).parents[2]


def config(file, argument):
    spec = importlib.util.spec_from_file_location(file, ROOT / "configs" / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


@pytest.mark.parametrize(
    ("file", "argument", "size"),
    [
        ("text", "", 258),  # 256 characters, the unknown one, EOS
        ("text", "tokenizer=bytes", 257),
        ("text", "tokenizer=sentencepiece", 1025),
        ("countdown", "", None),  # exactly those of its symbols
        ("openwebtext", "", ASSUMED),  # its tokenizer's file is not here
    ],
)
def test_it_is_the_configs(file, argument, size):
    chosen = config(file, argument)
    found, source = vocabulary(chosen)
    if size is None:
        data = registry.build("data", chosen.data)
        size = len(set(data.task.symbols)) + 4  # separator, unknown, EOS, padding
    assert found == size
    assert ("assumed" in source) == (file == "openwebtext")
