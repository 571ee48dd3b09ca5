from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ldd_jax.evaluation import curves

TRAIN = [{"step": n, "train_loss": 3 / n} for n in range(1, 9)]
BOUND = [
    {"step": n, "validation/nelbo_nats_per_token": 4 / n, "validation/nelbo_se": 0.1}
    for n in (4, 8)
]
DIVERGED = [
    {"step": 9, "train_loss": None},
    {"step": 9, "validation/nelbo_nats_per_token": None, "validation/nelbo_se": None},
]


@pytest.mark.parametrize(
    "records",
    [TRAIN + BOUND, TRAIN, BOUND, TRAIN[:1], [], TRAIN + BOUND + DIVERGED, DIVERGED],
    ids=["both", "losses", "bounds", "one", "none", "diverged", "only diverged"],
)
@pytest.mark.parametrize("baseline", [None, 2.5])
def test_a_picture_is_written(records, baseline, tmp_path):
    path = tmp_path / "curve.png"
    curves.plot(records, path, title="a run", baseline=baseline)
    picture = plt.imread(path)
    assert picture.shape[0] > 300 and picture.shape[1] > 600
    assert np.std(picture[..., :3]) > 0.01  # something is drawn
    assert [p.name for p in tmp_path.iterdir()] == ["curve.png"]
    assert not plt.get_fignums()
