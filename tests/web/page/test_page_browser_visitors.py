"""The page in a real browser: several visitors at once."""

from __future__ import annotations

from pathlib import Path

from page_in_browser import Page, in_a_browser

pytestmark = in_a_browser


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
