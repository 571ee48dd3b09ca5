"""What a folder's digests name, and how the folder itself is named."""

import json

import pytest

from ldd_jax.training import digests


def test_a_folder_reached_by_its_parent_is_whole(tmp_path, monkeypatch):
    """`--workdir=../runs/mine`: only what digests.json names must stay inside."""
    folder, beside = tmp_path / "run", tmp_path / "beside"
    (folder / "ema").mkdir(parents=True)
    beside.mkdir()
    (folder / "ema" / "data").write_bytes(b"some")
    digests.write(folder)
    monkeypatch.chdir(beside)
    for way in ("../run", str(folder / ".." / "run"), "../beside/../run"):
        assert digests.fault(type(folder)(way)) == ""
    (folder / "ema" / "data").write_bytes(b"same")
    assert digests.fault(type(folder)("../run")) == "ema/data is not what was written"


@pytest.mark.parametrize("name", ["../other", "ema/../../other", "/etc/hostname"])
def test_what_it_names_outside_is_refused(tmp_path, name):
    stated = json.dumps({"sha256": {name: [0, ""]}})
    (tmp_path / digests.FILE).write_text(stated)
    assert "is not in the folder" in digests.fault(tmp_path)
