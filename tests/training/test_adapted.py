"""A mask that opens: resumed in the middle to the bit, and the same on many devices."""

from __future__ import annotations

import numpy as np
import pytest

from tests import children
from tests.training import adapted


@pytest.mark.slow
def test_annealing_goes_on_to_the_bit_and_is_the_same_on_eight_devices(tmp_path):
    found = children.found("tests.training.adapted", tmp_path)
    assert found["resumed"] == found["one"] and found["same"]
    assert len(set(found["one"])) == adapted.STEPS + adapted.MORE
    for name, losses in found["many"].items():
        np.testing.assert_allclose(losses, found["one"], rtol=0, atol=1e-5, err_msg=name)
