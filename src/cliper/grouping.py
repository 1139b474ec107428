"""Pictures of one size together, for models that are quicker with many at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

__all__ = ["groups_of_one_size"]

T = TypeVar("T")


def groups_of_one_size(items: Iterable[T], most: int, size: Callable[[T], Hashable | None]) -> Iterator[list[T]]:
    """Put together what is of one size.

    Args:
        items: pictures; no more than ``8 * most`` of them are held at any time.
        most: how many make a group; fewer come where no more of that size are near.
        size: of an item; what has None comes alone.

    Yields:
        Groups; with ``most=1`` in the order of ``items``.

    Example:
        >>> list(groups_of_one_size(["cat", "cow", "horse", "dog"], 2, len))
        [['cat', 'cow'], ['horse'], ['dog']]
    """
    groups: dict[Hashable, list[T]] = {}
    held = 0
    for item in items:
        key = size(item)
        if key is None:
            yield [item]
            continue
        group = groups.setdefault(key, [])
        group.append(item)
        held += 1
        if len(group) >= most:
            ready = groups.pop(key)
        elif held >= 8 * most:
            ready = groups.pop(next(iter(groups)))  # the one that has waited longest
        else:
            continue
        held -= len(ready)
        yield ready
    yield from groups.values()
