"""Groups of pictures of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from cliper.grouping import groups_of_one_size


@given(st.lists(st.sampled_from([(1, 2), (2, 1), (3, 3), None]), max_size=60), st.integers(1, 5))
def test_groups_are_of_one_size_and_lose_nothing(sizes: list[tuple[int, int] | None], most: int) -> None:
    taken = 0

    def pictures() -> Iterator[int]:
        nonlocal taken
        for number in range(len(sizes)):
            taken += 1
            yield number

    handed_out: list[int] = []
    for group in groups_of_one_size(pictures(), most, lambda number: sizes[number]):
        assert taken - len(handed_out) <= 8 * most + 1  # few are held at any time
        assert 1 <= len(group) <= most
        assert len({sizes[number] for number in group}) == 1
        if sizes[group[0]] is None:
            assert len(group) == 1
        handed_out += group
    assert Counter(handed_out) == Counter(range(len(sizes)))
    if most == 1:
        assert handed_out == list(range(len(sizes)))
