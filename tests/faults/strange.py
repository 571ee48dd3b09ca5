"""Targets of the fuzzer beyond readers of one file: TFDS folders, and callers of a roll call."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from unittest import mock

from ldd_jax.data.tfds_folder import open_folder
from ldd_jax.training import meeting

TEXT = "tensorflow_datasets.core.features.text_feature.Text"
DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
INFO = {
    "name": "innocent", "version": "1.0.0", "fileFormat": "array_record",
    "splits": [{"name": "train", "shardLengths": ["1"], "numBytes": "1"}],
}  # fmt: skip
FEATURES = {
    "pythonClassName": DICT,
    "featuresDict": {"features": {"text": {"pythonClassName": TEXT, "text": {}}}},
}
LEGACY = {"type": DICT, "content": {"text": {"type": TEXT, "content": {}}}}


def features(folder: Path, data: bytes) -> object:
    """A TFDS folder with these features; no class outside TFDS may be asked for."""
    place = folder / "tfds"
    place.mkdir(exist_ok=True)
    (place / "dataset_info.json").write_text(json.dumps(INFO))
    (place / "features.json").write_bytes(data)
    import tensorflow_datasets as tfds

    asked, plain = [], tfds.features.FeatureConnector.cls_from_name

    def resolve(name):
        asked.append(name)
        return plain(name)

    try:
        with mock.patch.object(tfds.features.FeatureConnector, "cls_from_name", resolve):
            return open_folder(place, "tfds:X")
    finally:
        assert all(name.startswith("tensorflow_datasets.") for name in asked), asked


def caller(data: bytes) -> object:
    """A line of a roll call, from somebody without the token."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as lines:
        for line in (ours, theirs):
            lines.enter_context(line)
        listener = meeting._Listener(theirs, 3, "secret", lines)
        ours.setblocking(False)
        listener.heard[ours] = time.monotonic() + 5, bytearray(), "somewhere"
        listener.waiting.register(ours, 1)
        theirs.sendall(data[:5000])
        theirs.shutdown(socket.SHUT_WR)
        while ours in listener.heard:
            listener._read(ours)
        assert not listener.came
    return None
