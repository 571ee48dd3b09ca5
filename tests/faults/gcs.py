"""The same commands on Google Cloud Storage: an emulator, which the test starts on this machine.

Part of `make extras`: needs gcsfs and gcp-storage-emulator.
"""

from __future__ import annotations

import contextlib

import pytest
from gcp_storage_emulator.server import create_server

from ldd_jax.core import lease
from ldd_jax.core.checks import UserError
from ldd_jax.core.storage import at
from tests.cli import tools
from tests.cli.conftest import compile_once, text, train_flags, trained  # noqa: F401
from tests.training.test_distributed import free_port


@pytest.fixture(scope="module")
def store():
    """The emulator's address, in the environment."""
    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="runs")
    server.start()
    patch = pytest.MonkeyPatch()
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks for credentials
    yield
    patch.undo()
    server.stop()


def test_shards_a_run_samples_and_an_export(store, text, train_flags):  # noqa: F811
    at("gs://runs/text/a.txt").put(text.read_bytes())
    made = ("prepare", "--config=text", "--config.data.split=line", "--config.data.length=16")
    tools.good(*made, "--config.data.path=gs://runs/text/*.txt", "--output=gs://runs/shards")
    given = [f for f in train_flags if "config.data.path" not in f]
    place = ("--workdir=gs://runs/one", "--config.data.path=gs://runs/shards")
    steps = "--config.training.num_steps="
    tools.good("train", tools.recipe("mdlm"), *given, *place, f"{steps}5")
    again = tools.good("train", tools.recipe("mdlm"), *given, *place, f"{steps}12")
    assert "updates 5 to 12" in again.out
    kept = at("gs://runs/one/checkpoints")
    assert sorted(p.name for p in kept.iterdir()) == ["10", "12"]
    assert not (at("gs://runs/one") / "lock").exists()
    tools.good("sample", "--workdir=gs://runs/one", "--num_samples=1", "--steps=2")
    tools.good("export", "--workdir=gs://runs/one", "--output=gs://runs/out")
    assert "byte for byte" in tools.good("import", "gs://runs/out", "--workdir=gs://runs/two").out


def test_a_lease(store, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "STALE", 1.0)
    with contextlib.ExitStack() as held:
        lease.hold(at("gs://runs/held/lock"), held)
        with pytest.raises(UserError, match="in use by another run"):
            lease.hold(at("gs://runs/held/lock"), contextlib.ExitStack())
        lease.check(at("gs://runs/held"))
    assert not at("gs://runs/held").exists()
