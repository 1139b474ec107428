"""Reading ahead and grouping by size: all items come, few are in memory, and errors are passed on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from cliper.runner.prefetch import group_by_size, read_ahead


def test_few_items_are_read_before_they_are_wanted() -> None:
    listed = []

    def listing() -> Iterator[int]:
        for number in range(1000):
            listed.append(number)
            yield number

    reading = read_ahead(listing(), lambda n: n, threads=2, ahead=3)
    for _ in range(10):
        next(reading)
    time.sleep(0.3)
    assert len(listed) <= 10 + 3 + 2 + 1  # handed out, waiting, in the threads
    reading.close()
    until = time.monotonic() + 10
    while any(thread.name.startswith("cliper-read") for thread in threading.enumerate()):
        assert time.monotonic() < until, "the threads go on"
        time.sleep(0.01)


@given(st.lists(st.sampled_from([(1, 2), (2, 1), (3, 3)]), max_size=60), st.integers(1, 5))
def test_groups_are_of_one_size_and_lose_nothing(sizes: list[tuple[int, int]], max_size: int) -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for number in range(len(sizes)):
            taken += 1
            yield number

    handed_out: list[int] = []
    for group in group_by_size(numbers(), max_size, lambda number: sizes[number]):
        assert taken - len(handed_out) <= 8 * max_size + 1  # few are held at any time
        assert 1 <= len(group) <= max_size
        assert len({sizes[number] for number in group}) == 1
        handed_out += group
    assert Counter(handed_out) == Counter(range(len(sizes)))
    if max_size == 1:
        assert handed_out == list(range(len(sizes)))
