"""W&B's own library, offline.

Part of `make extras`: needs wandb.
"""

from __future__ import annotations

import wandb as library

from ldd_jax.training import wandb


def test_it_keeps_a_run_under_one_id(tmp_path, monkeypatch):
    """Twice, as after a restart; both have the id of the workdir."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "there"))
    (tmp_path / "there").mkdir()
    assert library.__version__
    wandb.check("words")
    for step in (1, 2):
        writer = wandb.WandB("words", tmp_path, "a title", {"seed": 1})
        writer.write(step, {"loss": 1.5, "text": "words"})
        name = writer.run.id
        writer.close()
    assert name in (tmp_path / "wandb.json").read_text()
    assert len(list((tmp_path / "there").rglob(f"run-{name}.wandb"))) == 2
    assert [p.name for p in tmp_path.iterdir() if p.name != "there"] == ["wandb.json"]
