"""Batches that are begun while the one before is read and decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Each item once the next was asked for, so that devices work while the host reads.

    What was begun before an item failed, or was interrupted, still comes.

    Args:
      items: makes them, in order, without waiting for what they hold.
    """
    begun, source = [], iter(items)
    while True:
        try:
            begun.append(next(source))
        except StopIteration:
            break
        except (Exception, KeyboardInterrupt):
            yield from begun
            raise
        if len(begun) > 1:
            yield begun.pop(0)
    yield from begun
