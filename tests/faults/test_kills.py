"""The short form of `make faults`: a few signals, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.faults import drill, kills


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    return drill.Arena(tmp_path_factory.mktemp("arena"), length=44)


def lost(row):
    """Steps and examples."""
    return row.lost_steps, row.lost_examples


@pytest.mark.slow
def test_sigterm(arena):
    assert lost(kills.sigterm(arena, 2)) == (0, 0)


@pytest.mark.slow
def test_sigkill(arena):
    assert lost(kills.sigkill(arena, 2)) == (0, 0)


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes(arena):
    assert lost(kills.one_of_two(arena, drill.SIGTERM)) == (0, 0)


def test_the_account_sees_what_is_lost(tmp_path):
    """A life that begins at step 2 undoes step 2; a gap is an error; a repeated row is counted."""
    ledger = tmp_path / "l"
    first = ['{"begin": 0}', '{"step": 0, "rows": [1, 0]}', '{"step": 1, "rows": [2, 3]}']
    text = [*first, '{"step": 2, "rows": [9, 9]}', '{"begin": 2}', '{"step": 2, "rows": [0, 1]}']
    (tmp_path / "l.0").write_text("\n".join([*text, '{"step": 3, "ro']))
    assert drill.account(ledger) == [[1, 0], [2, 3], [0, 1]]
    (tmp_path / "l.0").write_text("\n".join([*first, '{"begin": 3}']))
    with pytest.raises(AssertionError, match="missing"):
        drill.account(ledger)
    (tmp_path / "l.0").write_text("\n".join([*first, '{"step": 3, "rows": [0, 1]}']))
    with pytest.raises(AssertionError, match="missing"):
        drill.account(ledger)
