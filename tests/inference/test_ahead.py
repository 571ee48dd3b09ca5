"""The next batch is begun before the last is read, and nothing that was begun is lost."""

import pytest

from ldd_jax.inference.ahead import ahead


def seen(items):
    """What happens, in order, until an error."""
    events = []

    def begin():
        for item in items:
            if isinstance(item, BaseException):
                raise item
            events.append(f"begin {item}")
            yield item

    try:
        for item in ahead(begin()):
            events.append(f"read {item}")
    except (ValueError, KeyboardInterrupt) as error:
        events.append(type(error).__name__)
    return events


@pytest.mark.parametrize(
    ("items", "events"),
    [
        ([], []),
        ([0], ["begin 0", "read 0"]),
        ([0, 1, 2], ["begin 0", "begin 1", "read 0", "begin 2", "read 1", "read 2"]),
        ([0, ValueError()], ["begin 0", "read 0", "ValueError"]),
        ([0, 1, ValueError()], ["begin 0", "begin 1", "read 0", "read 1", "ValueError"]),
        ([0, KeyboardInterrupt()], ["begin 0", "read 0", "KeyboardInterrupt"]),
    ],
)
def test_order(items, events):
    assert seen(items) == events
