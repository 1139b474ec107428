"""Tasks in parallel threads."""

import threading

import pytest
import torch

from cliper.kernels.threads import threaded_map


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "the caller's number of threads was changed"
    torch.set_num_threads(before)


def test_tasks_run_in_parallel_and_results_are_in_order() -> None:
    meeting = threading.Barrier(2, timeout=30)

    def work(index: int) -> int:
        if index < 2:
            meeting.wait()  # passes only if two tasks run at the same time
        return index * index

    assert list(threaded_map(work, 7)) == [0, 1, 4, 9, 16, 25, 36]


def test_each_task_runs_on_one_core_in_inference_mode() -> None:
    assert set(threaded_map(lambda _: (torch.get_num_threads(), torch.is_inference_mode_enabled()), 4)) == {(1, True)}


def test_error_of_a_task_is_raised_to_the_caller() -> None:
    def work(index: int) -> int:
        if index == 1:
            raise KeyError("one")
        return index

    with pytest.raises(KeyError, match="one"):
        list(threaded_map(work, 3))


def test_no_tasks() -> None:
    assert list(threaded_map(lambda index: index, 0)) == []
