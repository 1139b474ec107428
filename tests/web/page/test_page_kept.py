"""Results are kept within bounds, and each is known to one session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.errors import InputError
from cliper.result import Segmentation
from cliper.settings import Settings
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits


def made(side: int = 10) -> Segmentation:
    maps = np.ones((1, 2, 2), np.float32)
    return Segmentation(
        image=Image.new("RGB", (side, side)),
        classes=("dog",),
        labels=np.zeros((side, side), np.int32),
        confidence=np.ones(1, np.float32),
        maps=maps,
        refined=maps,
        settings=Settings(),
        model="none",
    )


def test_each_has_a_name_that_nobody_guesses(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits())
    first, second = made(), made()
    names = kept.put(first), kept.put(second)
    assert len({*names}) == 2
    assert min(map(len, names)) >= 20
    assert kept.get(names[0]) is first
    assert kept.get(names[1]) is second
    for other in ("", "else", names[0][:-1], "../" + names[0], None, [names[0]], {}):
        kept.drop(other)
        with pytest.raises(InputError, match="no longer kept"):
            kept.get(other)


def test_the_one_used_longest_ago_goes_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits(results=2))
    first, second = kept.put(made()), kept.put(made())
    kept.get(first)
    third = kept.put(made())
    assert len(kept) == 2
    kept.get(first)
    kept.get(third)
    with pytest.raises(InputError):
        kept.get(second)


def test_memory_is_bounded_but_the_newest_stays(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits(result_megabytes=1))
    small = kept.put(made(100))
    large = kept.put(made(1000))  # 7 megabytes
    assert len(kept) == 1
    kept.get(large)
    with pytest.raises(InputError):
        kept.get(small)


def test_what_nobody_looks_at_goes(tmp_path: Path) -> None:
    now = [0.0]
    kept = Kept(tmp_path, Limits(seconds=60), clock=lambda: now[0])
    name = kept.put(made())
    now[0] = 50.0
    kept.get(name)
    now[0] = 100.0
    kept.get(name)
    now[0] = 161.0
    with pytest.raises(InputError):
        kept.get(name)
    assert len(kept) == 0


def test_files_go_with_their_result(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits(results=1))
    name = kept.put(made())
    folder = kept.folder(name)
    (folder / "labels.png").write_bytes(b"x")
    assert folder.parent == tmp_path
    kept.put(made())
    assert not folder.exists()
    second: Any = kept.folder(kept.put(made()))
    kept.drop(second.name)
    assert not second.exists()
    kept.drop("never there")


def test_a_sweep_lets_go_of_what_nobody_asks_for_any_more(tmp_path: Path) -> None:
    now = [0.0]
    kept = Kept(tmp_path, Limits(seconds=10), clock=lambda: now[0])
    old = kept.folder(kept.put(made()))
    now[0] = 6.0
    kept.put(made())
    kept.sweep()
    assert len(kept) == 2
    now[0] = 11.0
    kept.sweep()
    assert len(kept) == 1
    assert not old.exists()
