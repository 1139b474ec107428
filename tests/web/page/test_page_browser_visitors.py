"""The page in a real browser: several visitors at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_in_browser import SECONDS, Page, in_a_browser
from page_over_http import call, join, messages

from cliper.web.page.actions import Actions
from cliper.web.page.limits import Limits
from cliper.web.page.run import serving

pytestmark = in_a_browser


class Gate:
    """Where segmenting waits until it is opened; it is open at first."""

    def __init__(self) -> None:
        self.open, self.waiting = threading.Event(), threading.Event()
        self.open.set()

    def wait(self) -> None:
        self.waiting.set()
        assert self.open.wait(SECONDS)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    made = Gate()
    segment = Actions.segment

    def gated(self: Actions, form: Any, name: str) -> Any:
        made.wait()
        yield from segment(self, form, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actions, "segment", gated)
        yield made
        made.open.set()


@pytest.fixture(scope="module")
def address(small: Any, gate: Gate) -> Iterator[str]:
    with serving(small, lambda name: small, port=0, limits=Limits(waiting=2)) as (place, _):
        yield place


def test_two_visitors_do_not_disturb_each_other(page: Page, address: str, photo_file: Path) -> None:
    driver = page.driver
    first = driver.current_window_handle
    page.upload(photo_file)
    page.type("horse")
    page.segment()
    driver.switch_to.new_window("tab")
    try:
        other = Page(driver, address)
        other.upload(photo_file)
        other.type("person")
        other.segment()
        assert other.row("person") is not None
        driver.switch_to.window(first)
        slider = page.one("#threshold input[type=range]")
        page.after(lambda: slider.send_keys("\ue012"))
        assert [row.get_attribute("data-name") for row in page.all(".legend tbody tr")][:-1] == ["horse"]
        driver.switch_to.window(driver.window_handles[-1])
    finally:
        driver.close()
        driver.switch_to.window(first)


def test_who_has_a_result_does_not_wait_for_those_who_segment(
    page: Page, address: str, photo_file: Path, gate: Gate
) -> None:
    page.upload(photo_file)
    page.type("horse")
    page.segment()
    gate.waiting.clear()
    gate.open.clear()
    try:
        # One has the network, two wait: the line is full.
        sessions = [f"visitor{number}" for number in range(3)]
        for session in sessions:
            assert join(address, "segment", [None] * 12, session)[0] == 200
            assert gate.waiting.wait(SECONDS)
        status, text = join(address, "segment", [None] * 12, "another")
        assert (status, "too many are waiting" in text) == (503, True)
        page.driver.execute_script(  # what Gradio shows for some seconds stays
            "const later = window.setTimeout;"
            "window.setTimeout = (act, after, ...more) => after > 2000 ? 0 : later(act, after, ...more);"
        )
        page.press()
        page.until(lambda: page.status()[0] == "error")
        assert "too many may be waiting" in page.status()[1]
        page.until(lambda: not page.all("[data-testid=toast-body]"))

        # Thresholds, files, the example and another model's settings wait for nobody.
        page.after(lambda: page.one("#threshold input[type=range]").send_keys("\ue014"))
        page.one("#example").click()
        page.until(
            lambda: len(page.all("#classes .chip")) == 1 and "horses" in page.one("#picture img").get_attribute("src")
        )
        for number in range(20):
            assert call(address, "suit", ["mini"], f"quick{number}")[-1]["success"]
    finally:
        gate.open.set()
    for session in sessions:
        assert "expected a picture, got none" in str(messages(address, session))
    assert call(address, "segment", [None] * 12, "another")[-1]["success"]
    page.segment()
