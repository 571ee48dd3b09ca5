"""A TFDS folder of a stranger: no class that it names is imported unless it is TFDS's own."""

from __future__ import annotations

import json
import sys

import pytest

from ldd_jax.core.checks import UserError
from ldd_jax.data.sources import open_source

INFO = {
    "name": "innocent",
    "version": "1.0.0",
    "fileFormat": "array_record",
    "splits": [{"name": "train", "shardLengths": ["1"], "numBytes": "1"}],
}
TEXT = "tensorflow_datasets.core.features.text_feature.Text"
DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
SEQUENCE = "tensorflow_datasets.core.features.sequence_feature.Sequence"


def nested(name):
    return {
        "pythonClassName": DICT,
        "featuresDict": {
            "features": {
                "text": {"pythonClassName": TEXT, "text": {}},
                "more": {
                    "pythonClassName": SEQUENCE,
                    "sequence": {"feature": {"pythonClassName": name, "text": {}}, "length": "-1"},
                },
            }
        },
    }


SHAPES = {
    "top": lambda name: {"pythonClassName": name, "text": {}},
    "snake": lambda name: {"python_class_name": name, "text": {}},
    "legacy": lambda name: {"type": name, "content": {}},
    "nested": nested,
    # Parts of the form before are kept as JSON inside JSON.
    "in a string": lambda name: {
        "pythonClassName": SEQUENCE,
        "jsonFeature": {
            "json": json.dumps({"feature": {"type": name, "content": {}}, "length": None})
        },
    },
}


def folder(tmp_path, features):
    place = tmp_path / "set"
    place.mkdir()
    (place / "dataset_info.json").write_text(json.dumps(INFO))
    (place / "features.json").write_text(
        features if isinstance(features, str) else json.dumps(features)
    )
    return place


@pytest.mark.parametrize("shape", SHAPES)
def test_a_class_of_the_folder_is_not_imported(shape, tmp_path, monkeypatch):
    module = f"stranger_{shape.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    place = folder(tmp_path, SHAPES[shape](f"{module}.Text"))
    with pytest.raises(UserError, match=f"names the class '{module}.Text'"):
        open_source(f"tfds:{place}")
    assert not (tmp_path / "ran").exists() and module not in sys.modules


@pytest.mark.parametrize(
    "name", ["tensorflow_datasets", "tensorflow_datasets_evil.X", "Text", "", "../x.Y",
             "tensorflow_datasets..x.Y", " tensorflow_datasets.core.X"],
)  # fmt: skip
def test_names_that_only_look_like_its_own(name, tmp_path):
    with pytest.raises(UserError, match="names the class"):
        open_source(f"tfds:{folder(tmp_path, SHAPES['nested'](name))}")


UNKNOWN = '{"pythonClassName": "tensorflow_datasets.no.X"}'


@pytest.mark.parametrize(
    "features", ["", "[", "{}", "[1]", UNKNOWN, '{"a":' * 5000, "[" * 50 + "]" * 50]
)
def test_features_that_are_none_are_refused_in_words(features, tmp_path):
    with pytest.raises(UserError, match="features.json|no data set"):
        open_source(f"tfds:{folder(tmp_path, features)}")


def test_its_own_classes_are_made(tmp_path):
    assert open_source(f"tfds:{folder(tmp_path, SHAPES['nested'](TEXT))}") is not None
