"""Reading ahead: everything comes, little is in memory, what goes wrong is passed on, and nothing waits at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliper.errors import InputError
from cliper.scale.items import Item
from cliper.scale.reading import read_ahead


def items(path: Path, count: int) -> Iterator[Item]:
    for number in range(1, count + 1):
        yield Item(number, f"{number}.png", str(path if number % 5 else path.with_name("none.png")))


@pytest.mark.parametrize("threads", [1, 4])
def test_everything_comes_once(photo: Path, threads: int) -> None:
    found = list(read_ahead(items(photo, 23), threads=threads, ahead=3))
    assert sorted(one.item.number for one in found) == list(range(1, 24))
    if threads == 1:
        assert [one.item.number for one in found] == list(range(1, 24))
    for one in found:
        assert (one.picture is None) is (one.error is not None) is (one.item.number % 5 == 0)


def test_few_are_read_before_they_are_wanted(photo: Path) -> None:
    listed = []

    def listing() -> Iterator[Item]:
        for item in items(photo, 1000):
            listed.append(item.number)
            yield item

    pictures = read_ahead(listing(), threads=2, ahead=3)
    for _ in range(10):
        next(pictures)
    time.sleep(0.3)
    assert len(listed) <= 10 + 3 + 2 + 1  # handed out, waiting, in the threads' hands
    pictures.close()
    until = time.monotonic() + 10
    while any(thread.name.startswith("cliper-read") for thread in threading.enumerate()):
        assert time.monotonic() < until, "the threads go on"
        time.sleep(0.01)


def test_what_listing_raises_comes_after_what_was_listed(photo: Path) -> None:
    def listing() -> Iterator[Item]:
        yield from items(photo, 9)
        raise InputError("the tar is cut off")

    found: list[int] = []
    with pytest.raises(InputError, match="cut off"):
        found.extend(one.item.number for one in read_ahead(listing(), threads=3, ahead=2))
    assert sorted(found) == list(range(1, 10))
