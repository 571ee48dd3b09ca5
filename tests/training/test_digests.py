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


def test_the_first_fault_is_told_of_many_files(tmp_path, monkeypatch):
    """Files are read side by side; what is said does not depend on which is read first."""
    for i in range(40):
        (tmp_path / f"{i:02d}").write_bytes(bytes([i]) * 1000)
    digests.write(tmp_path)
    assert digests.fault(tmp_path) == ""
    for i in (7, 31):
        (tmp_path / f"{i:02d}").write_bytes(b"x" * 1000)
    (tmp_path / "35").unlink()
    for most in (1, 16):
        monkeypatch.setattr(digests, "MOST", most)
        assert digests.fault(tmp_path) == "07 is not what was written"
