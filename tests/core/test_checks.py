"""What is a number, where texts and files say so."""

import pytest

from ldd_jax.core.checks import is_number, is_whole


def test_whole_numbers():
    for text in ("0", "7", "007", "9" * 18):
        assert is_whole(text), text
    for text in ("", "-1", "+1", "1.0", " 1", "1_0", "\u0663", "\u00b2", "9" * 19, str(2**63)):
        assert not is_whole(text), text
    assert is_whole("2", 2) and not is_whole("1", 2)


@pytest.mark.parametrize("value", [0, -3, 2.5, 1e299])
def test_numbers(value):
    assert is_number(value)


def test_no_numbers():
    for value in (True, None, "1", [1], float("nan"), float("inf"), 10**301):
        assert not is_number(value)
