"""Reading words: long lists a few at a time, given up when nobody waits; the built-in ones are there at the start."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cliper.cache import LRUTextCache, SQLiteTextCache
from cliper.prompts import scene_background
from cliper.segmenter import Segmenter
from cliper.web.service.limits import Limits
from cliper.web.service.served import Served

LONG = [f"thing {number}" for number in range(200)]
"""In one template more than are read at once."""


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many classes each call of ``encode_text`` had."""
    counts: list[int] = []
    real = Segmenter.encode_text

    def counted(self: Segmenter, classes: Any) -> Any:
        counts.append(len(classes))
        return real(self, classes)

    monkeypatch.setattr(Segmenter, "encode_text", counted)
    return counts


def test_a_long_list_gives_what_the_segmenter_gives(start: Any, picture_file: bytes, encoded: list[int]) -> None:
    service = start()
    settings = {"templates": ["a {}."]}
    answered = service.segment(picture_file, LONG, background="none", settings=settings)
    assert answered.status_code == 200
    assert encoded == [128, 72, 200]  # the last is the segmenter itself, and finds them all
    assert service.service.served.texts.misses == 200
    again = service.segment(picture_file, LONG, background="none", settings=settings)
    assert again.json()["masks"] == answered.json()["masks"]
    assert encoded[3:] in ([], [200])  # the segmenter keeps the words of its last call


def test_a_list_that_nobody_waits_for_is_given_up(
    start: Any, picture_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start(seconds=2.0)
    real, end, pieces = Segmenter.encode_text, threading.Event(), []

    def slow(self: Segmenter, classes: Any) -> Any:
        pieces.append(len(classes))
        found = real(self, classes)
        end.wait(60)
        return found

    monkeypatch.setattr(Segmenter, "encode_text", slow)
    wishes = {"background": "none", "settings": {"templates": ["a {}."]}}
    assert service.segment(picture_file, LONG, **wishes).status_code == 504
    end.set()
    until_empty = time.monotonic() + 60
    while b"cliper_dropped_total 1.0" not in service.service.metrics.text():
        assert time.monotonic() < until_empty
        time.sleep(0.01)
    assert pieces == [128]  # the second was not begun
    assert service.service.served.texts.misses == 128  # what was read is kept
    answered = service.segment(picture_file, LONG, **wishes)
    assert (answered.status_code, service.service.served.texts.misses) == (200, 200)  # only the others were encoded


def test_the_background_words_are_read_before_the_first_request(own_tiny: Segmenter, tmp_path: Path) -> None:
    own_tiny.cache = SQLiteTextCache(tmp_path / "texts.sqlite")
    served = Served(own_tiny, Limits())
    served.try_out()
    words = [prompt for item in scene_background(()) for prompt in item.prompts]
    known = SQLiteTextCache(tmp_path / "texts.sqlite").get(
        own_tiny.encoder.text_fingerprint(), _forms(own_tiny), [*words, "thing"]
    )
    assert set(known) == {*words, "thing"}
    segmenter = served.variant(served.settings, refined=False)
    segmenter.encode_text(scene_background(()))
    assert (served.texts.misses, served.texts.hits) == (0, len(words))
    segmenter.encode_text(["a stranger's word"])
    assert served.texts.misses == 1
    assert not own_tiny.cache.get(own_tiny.encoder.text_fingerprint(), _forms(own_tiny), ["a stranger's word"])


def test_what_is_missing_is_asked_of_memory_alone(own_tiny: Segmenter) -> None:
    memo = LRUTextCache(2)
    vectors = own_tiny.encode_text(["cat", "dog", "cow"]).cpu()
    memo.put("f", ["{}"], {"cat": vectors[0], "dog": vectors[1]})
    assert memo.missing("f", ["{}"], ["cow", "cat", "dog"]) == ["cow"]
    assert memo.missing("other", ["{}"], ["cat"]) == ["cat"]
    memo.put("f", ["{}"], {"cow": vectors[2]})
    assert memo.missing("f", ["{}"], ["cow", "cat", "dog"]) == ["cat"]
    assert memo.hits == 0


def _forms(segmenter: Segmenter) -> tuple[str, ...]:
    from cliper.prompts import load_templates

    return load_templates(segmenter.settings.templates)
