"""Samplers of a target on many devices: rollouts, weights and buffer are those of one."""

from __future__ import annotations

import numpy as np
import pytest

from tests import children
from tests.training import rolled


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lddm_mdns", "mdns_lv"])
def test_eight_devices_and_microbatches_do_what_one_device_does(method, tmp_path):
    found = children.found("tests.training.rolled", tmp_path, method)
    one = found["one"]
    assert len(set(one)) == rolled.STEPS + rolled.MORE
    for name in rolled.MESHES:
        losses, furthest, same, continued = found[name]
        np.testing.assert_allclose(losses, one, rtol=1e-4, atol=1e-5)
        assert furthest < 1e-3 and all(same), name
        np.testing.assert_allclose(continued, one[rolled.STEPS :], rtol=1e-4, atol=1e-5)
    if method == "lddm_mdns":
        assert len(found["spec"]) == 3 and all("data" in spec for spec in found["spec"])
