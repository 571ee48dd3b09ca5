"""Rows by blocks on many devices: the tokens and calls of one."""

import numpy as np
import pytest

from tests import children
from tests.samplers import sharded_blocks


@pytest.mark.slow
def test_eight_devices_draw_what_one_draws(tmp_path):
    """An exact cache with a latent, one that is renewed, left to right; rows are cut."""
    found = children.found("tests.samplers.sharded_blocks", tmp_path)
    assert set(found) == set(sharded_blocks.RUNS)
    for runs in found.values():
        tokens, calls = (np.asarray(part) for part in runs["one"])
        assert (tokens[:, :5] == 3).all() and len({tuple(row) for row in tokens}) > 4
        assert (calls > 2).all()
        for other in runs.values():
            np.testing.assert_array_equal(other[0], tokens)
            np.testing.assert_array_equal(other[1], calls)
