"""Patch boundaries: the corrected rules, a plain-Python reference, and what decides a start."""

import numpy as np
import pytest

from ldd_jax.data.patches import (
    EntropyPatches,
    SpacePatches,
    StaticPatches,
    by_entropy,
    capped,
    numbers,
)

H = np.array([[2, 0.3, 0.2, 1.9, 1.8, 0.1, 0.1, 2.5, 2.6, 0.2]])
places = lambda starts: np.flatnonzero(starts[0]).tolist()


@pytest.mark.parametrize(
    "rule, expected",
    [("global", [0, 1, 4, 5, 8, 9]), ("combined", [0, 1, 4, 8]), ("monotone", [0, 1, 4, 8])],
)
def test_the_example_of_the_corrected_rules(rule, expected):
    assert places(by_entropy(H, rule, 1.3354, 0.5)) == expected


def test_the_cap_cuts_greedily():
    assert places(capped(by_entropy(H), 2)) == [0, 1, 3, 4, 5, 7, 8, 9]
    assert places(capped(by_entropy(H), 0)) == places(by_entropy(H))


def reference(h, rule, theta, rise, longest, most):
    """One row, byte by byte."""
    starts, since = [], 0
    for i in range(len(h)):
        high = i > 0 and h[i - 1] > theta
        rose = i > 0 and h[i - 1] - (h[i - 2] if i > 1 else 0) > rise
        both = high and (i == 1 or rose)
        on = i == 0 or {"global": high, "monotone": rose, "combined": both}[rule]
        on = on or since == longest
        since = 1 if on else since + 1
        starts.append(on)
    kept = np.cumsum(starts) <= most
    return (np.array(starts) & kept).astype(np.uint8)


@pytest.mark.parametrize("rule", ["global", "monotone", "combined"])
def test_against_a_reference_and_the_invariants(rule):
    """Lengths sum to N and stay below the cap; what comes later changes no start before it."""
    rng = np.random.default_rng(0)
    h = rng.gamma(1.0, 1.0, (60, 23))
    tokens = np.zeros(h.shape, np.int64)
    for longest, most in ((3, 23), (5, 6)):
        rules = EntropyPatches(rule=rule, threshold=1.0, rise=0.4, longest=longest, most=most)
        found = rules.starts(tokens, lambda _: h)
        assert found.dtype == np.uint8
        for row, starts in zip(h, found, strict=True):
            np.testing.assert_array_equal(starts, reference(row, rule, 1.0, 0.4, longest, most))
        unit = numbers(found)
        assert (unit[:, 0] == 0).all() and set(np.unique(np.diff(unit))) <= {0, 1}
        assert unit.max() < most
        lengths = [np.bincount(u) for u in unit]
        assert all(sum(n) == 23 and (n[: most - 1] <= longest).all() for n in lengths)
        for k in (1, 7, 15):  # starts[0..k] depend on H[0..k-1] alone
            other = np.where(np.arange(23) < k, h, rng.gamma(1.0, 1.0, h.shape))
            again = rules.starts(tokens, lambda _, h=other: h)
            np.testing.assert_array_equal(again[:, : k + 1], found[:, : k + 1])


def test_static_and_space():
    text = np.frombuffer(b"a bc  d, e\xc3\xa9f g", np.uint8).astype(np.int64)[None]
    assert places(StaticPatches(size=4).starts(text)) == [0, 4, 8, 12]
    #                                                   a| bc|␣d|␣ e|éf ...
    assert places(SpacePatches().starts(text)) == [0, 2, 5, 8, 14]
    rng, rule = np.random.default_rng(1), SpacePatches(longest=5)
    tokens = rng.choice([97, 98, 32, 44, 200, 256], (40, 19))
    found = rule.starts(tokens)
    for k in (1, 6, 12):
        other = np.where(np.arange(19) < k, tokens, rng.integers(0, 257, tokens.shape))
        np.testing.assert_array_equal(rule.starts(other)[:, : k + 1], found[:, : k + 1])


def test_refusals():
    with pytest.raises(ValueError, match="rule 'globale'"):
        EntropyPatches(rule="globale")
    with pytest.raises(ValueError, match="size is 0"):
        StaticPatches(size=0)
    with pytest.raises(ValueError, match="longest is -1"):
        StaticPatches(longest=-1)
    with pytest.raises(ValueError, match="entropies of a model"):
        EntropyPatches().starts(np.zeros((1, 4), int))
