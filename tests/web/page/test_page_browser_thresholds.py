"""The page in a real browser: what is shown, the table, the sliders and the downloads are at the same thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_in_browser import Page, in_a_browser
from page_over_http import call

from cliper.formats import read_label_png
from cliper.web.page.limits import Limits
from cliper.web.page.models import Models
from cliper.web.page.run import serving

pytestmark = in_a_browser

OTHER = "ViT-B/16"  # a model that is offered; its settings are these
SCORE, BACKGROUND = 0.0, 0.65


@pytest.fixture(scope="module")
def address(small: Any) -> Iterator[str]:
    """A page that keeps one result, and remembers one session."""
    settings = Models.settings

    def with_other(self: Models, model: str) -> Any:
        if model == OTHER:
            return small.settings.replace(score_threshold=SCORE, background_threshold=BACKGROUND)
        return settings(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Models, "settings", with_other)
        with serving(small, lambda name: small, port=0, limits=Limits(results=1, sessions=1)) as (place, _):
            yield place


@pytest.fixture
def expected(small: Any, photo_file: Path) -> Any:
    return small(photo_file, ["horse", "dog"])


@pytest.fixture
def drawn(page: Page, photo_file: Path) -> Page:
    page.upload(photo_file)
    page.type("horse; dog")
    page.segment()
    return page


def slider(page: Page, name: str = "threshold") -> float:
    return float(page.one(f"#{name} input[type=range]").get_attribute("value"))


def downloaded(page: Page, folder: Path) -> np.ndarray:
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": False}
    )
    page.one("[data-what=labels]").click()
    page.until(lambda: (folder / "labels.png").is_file())
    return read_label_png(folder / "labels.png")


def all_at(page: Page, expected: Any, score: float, background: float, folder: Path) -> None:
    """Wait until the table has these thresholds; then the sliders and the file have them, too."""
    at = expected.relabel(score_threshold=score, background_threshold=background)
    page.until(lambda: page.area("horse") == f"{100 * at.areas['horse']:.1f}")
    assert (slider(page, "score"), slider(page)) == (score, background)
    assert np.array_equal(downloaded(page, folder), at.labels)


def moved(page: Page, expected: Any, steps: int) -> float:
    """Move the background's threshold with the keyboard; where it is then, and what is shown."""
    before = slider(page)
    for _ in range(steps):
        page.one("#threshold input[type=range]").send_keys("\ue014")  # the right arrow
    after = round(before + 0.01 * steps, 2)
    assert slider(page) == after
    at = expected.relabel(background_threshold=after)
    assert abs(at.areas["horse"] - expected.areas["horse"]) > 0.01, "nobody would see that it has moved"
    page.until(lambda: page.area("horse") == f"{100 * at.areas['horse']:.1f}")
    return after


def test_a_slider_that_is_reset(drawn: Page, expected: Any, tmp_path: Path) -> None:
    settings = expected.settings
    moved(drawn, expected, 15)
    drawn.one("#threshold .reset-button").click()
    all_at(drawn, expected, settings.score_threshold, settings.background_threshold, tmp_path)


def test_another_model_sets_the_thresholds(drawn: Page, expected: Any, tmp_path: Path) -> None:
    drawn.one("#settings button").click()
    field = drawn.until(lambda: drawn.all("#settings input[aria-label=Model]"))[0]
    drawn.until(field.is_displayed)
    field.send_keys("\ue009a\ue000" + OTHER + "\n")  # Control and A, then what is typed in its place
    all_at(drawn, expected, SCORE, BACKGROUND, tmp_path)


def test_an_error_ends_with_the_next_success(drawn: Page, expected: Any) -> None:
    kind, done = drawn.status()
    moved(drawn, expected, 15)
    assert drawn.status() == (kind, done), "what is said of the result stays"
    number = drawn.one("#threshold input[type=number]")
    number.send_keys("\ue009a\ue0007")
    drawn.until(lambda: drawn.status()[0] == "error")
    assert drawn.status()[1] == "Background threshold: expected a number from 0 to 1, got 7"
    number.send_keys("\ue0030.3")
    drawn.until(lambda: drawn.status()[1] == "")
    at = expected.relabel(background_threshold=0.3)
    drawn.until(lambda: drawn.area("horse") == f"{100 * at.areas['horse']:.1f}")


def test_files_are_of_what_is_shown(drawn: Page, expected: Any, tmp_path: Path) -> None:
    number = drawn.one("#threshold input[type=number]")
    number.send_keys("\ue009a\ue0007")
    drawn.until(lambda: drawn.status()[0] == "error")
    drawn.driver.execute_script(  # without leaving the field, which would set it to the nearest number that there is
        "document.querySelector('[data-what=labels]').addEventListener('mousedown', (e) => e.preventDefault())"
    )
    assert np.array_equal(downloaded(drawn, tmp_path), expected.labels)


def test_many_sessions_take_nothing_from_a_visitor(drawn: Page, expected: Any, address: str) -> None:
    for number in range(3):
        assert call(address, "suit", ["mini"], f"visitor{number}")[-1]["success"]
    moved(drawn, expected, 15)


def test_a_result_that_is_no_longer_kept_is_said(drawn: Page, address: str, small: Any) -> None:
    file, classes = call(address, "take_example", [], "another")[-1]["output"]["data"]
    values = [file, classes, "none", [], small.checkpoint.name, "self", "conference", 112, 0, 0.0, 0.1, ""]
    answer = call(address, "segment", values, "another")
    assert "found in" in str(answer), answer
    gone = ("error", "this result is no longer kept; press Segment again")
    drawn.one("#threshold input[type=range]").send_keys("\ue014")
    drawn.until(lambda: drawn.status() == gone)
    drawn.segment()
    call(address, "segment", values, "another")
    drawn.one("[data-what=coco]").click()
    drawn.until(lambda: drawn.status() == gone)
