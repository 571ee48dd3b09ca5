"""The walk through the tutorials: what a page promises is looked for."""

from __future__ import annotations

import importlib
import json

import pytest

from tests.test_site import TUTORIALS
from tests.training.processes import ROOT


@pytest.fixture
def walk(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module("tutorials")


def test_every_page_promises_something(walk):
    assert [f"{name}.md" for name in walk.order()] == TUTORIALS
    assert set(walk.PROMISED) == set(walk.order())
    assert all(words and files for words, files in walk.PROMISED.values())


@pytest.mark.parametrize(
    ("printed", "there", "lost"),
    [
        ("what a squared loss says", True, []),
        ("nothing", True, ["squared"]),
        ("what a squared loss says", False, ["runs/squared/summary.json"]),
    ],
)
def test_what_is_lacking_is_named(walk, tmp_path, printed, there, lost):
    cells = [
        {"cell_type": "markdown", "source": "squared"},  # the page's own word is no output
        {"cell_type": "code", "outputs": [{"output_type": "error"}, {"text": [printed, "\n"]}]},
    ]
    book = tmp_path / "component.ipynb"
    book.write_text(json.dumps({"cells": cells}))
    if there:
        (tmp_path / "runs/squared").mkdir(parents=True)
        (tmp_path / "runs/squared/summary.json").write_text("{}")
    assert walk.lacking("component", book, tmp_path) == lost
