"""A buffer of trajectories on many devices: that of one, cut like the batch, resumed to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from tests import children
from tests.training import kept


@pytest.mark.slow
def test_many_devices_keep_what_one_keeps(tmp_path):
    found = children.found("tests.training.kept", tmp_path)
    first, more = found["one"]
    for name in kept.MESHES:
        losses, gaps, specs, again = found[name]
        np.testing.assert_allclose(losses, first, rtol=0, atol=1e-5)
        assert max(gaps) < 1e-3 and gaps[:4] == [0, 0, 0, 0]  # tokens, what is kept, weights, z
        assert len(specs) == 7 and all("data" in spec for spec in specs)
        np.testing.assert_allclose(again, more, rtol=0, atol=1e-5)
    assert found["resumed"] == [more, True]
