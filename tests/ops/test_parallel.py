"""Pieces of work side by side."""

import threading

import pytest
import torch

from cliper.ops.parallel import ordered_map


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "the caller's number of threads was changed"
    torch.set_num_threads(before)


def test_results_come_in_order_and_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=30)

    def work(index: int) -> int:
        if index < 2:
            meeting.wait()  # passes only if two pieces run at the same time
        return index * index

    assert list(ordered_map(work, 7)) == [0, 1, 4, 9, 16, 25, 36]


def test_pieces_run_on_one_core_each_in_inference_mode() -> None:
    assert set(ordered_map(lambda _: (torch.get_num_threads(), torch.is_inference_mode_enabled()), 4)) == {(1, True)}


def test_an_error_reaches_the_caller() -> None:
    def work(index: int) -> int:
        if index == 1:
            raise KeyError("one")
        return index

    with pytest.raises(KeyError, match="one"):
        list(ordered_map(work, 3))


def test_nothing_to_do() -> None:
    assert list(ordered_map(lambda index: index, 0)) == []
