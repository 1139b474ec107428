"""Work that is given up ends soon, wherever it is, and its thread meets nothing later."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from cliper.files import atomic_write
from cliper.scale.turns import GivenUpError, Turn


def test_work_that_is_not_given_up() -> None:
    turn = Turn()
    assert turn.do(lambda: 3) == 3
    turn.give_up()  # too late
    time.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        Turn().do(lambda: 1 // 0)


def test_work_that_has_not_begun() -> None:
    turn = Turn()
    turn.give_up()
    with pytest.raises(GivenUpError):
        turn.do(lambda: pytest.fail("it was done"))


def test_a_picture_that_is_being_written(tmp_path: Path) -> None:
    picture = Image.effect_noise((3000, 3000), 90).convert("RGB")
    turn, begun = Turn(), threading.Event()

    def write() -> None:
        with atomic_write(tmp_path / "a" / "b.png") as temporary:
            begun.set()
            picture.save(temporary, compress_level=9)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(turn.do, write)
        assert begun.wait(60)
        turn.give_up()
        assert isinstance(done.exception(timeout=60), GivenUpError)
        assert list(tmp_path.iterdir()) == []
        assert pool.submit(lambda: 4).result(timeout=60) == 4


def test_at_any_moment() -> None:
    """Whether it is done or given up, the thread goes on well, and what is caught is caught there."""
    with ThreadPoolExecutor(1) as pool:
        for number in range(300):
            turn = Turn()

            def work(number: int = number) -> int:
                for _ in range(number * 3):
                    pass
                if number % 5 == 0:
                    raise ValueError
                return number

            done = pool.submit(turn.do, work)
            for _ in range(number % 7 * 40):
                pass
            turn.give_up()
            error = done.exception(timeout=60)
            assert error is None or isinstance(error, GivenUpError | ValueError)
            assert pool.submit(lambda: 4).result(timeout=60) == 4
