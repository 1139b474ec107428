"""The page in a real browser: a result is drawn, looked at and downloaded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_in_browser import HEIGHT, WIDTH, Page, in_a_browser
from PIL import Image

from cliper.formats import read_label_png

pytestmark = in_a_browser


@pytest.fixture
def expected(small: Any, photo_file: Path) -> Any:
    """The same from the package itself."""
    return small(photo_file, ["horse", "dog"])


def test_a_picture_and_words_give_an_overlay(
    page: Page, photo_file: Path, expected: Any, calls: Counter[str], tmp_path: Path
) -> None:
    page.upload(photo_file)
    page.type("horse; dog")
    before = Counter(calls)
    assert f"of 2 classes found in {WIDTH} x {HEIGHT} pixels" in page.segment()
    ran = calls - before
    assert ran["encode_images"] == 1

    # The overlay: coloured where the labels are, the picture where they are not.
    horse = expected.labels == 1
    assert 0.05 < horse.mean() < 0.9
    coloured = page.pixels()
    page.after(lambda: page.set(".opacity input", 0))
    picture = page.pixels()
    page.after(lambda: page.set(".opacity input", 55))
    change = np.abs(coloured - picture).sum(-1) > 0
    inside = expected.labels > 0
    assert change[inside].mean() > 0.9
    # Borders are drawn at one pixel beside a region, too.
    near = inside.copy()
    near[:-1] |= inside[1:]
    near[:, :-1] |= inside[:, 1:]
    assert not change[~near].any()

    # Reading off the class, with the mouse and with a finger.
    y, x = (int(v) for v in np.argwhere(horse & np.roll(horse, 3, 0) & np.roll(horse, -3, 0))[50])
    assert page.point(x, y) == "horse"
    assert page.point(3, 3) == "background"
    assert page.point(x, y, touch=True) == "horse"

    # The legend switches a class off, in the browser alone.
    box = page.row("horse").find_element("css selector", "input")
    page.after(box.click)
    assert np.array_equal(page.pixels()[horse & ~near_other(expected)], picture[horse & ~near_other(expected)])
    page.after(box.click)
    assert np.array_equal(page.pixels(), coloured)

    # A threshold gives other labels, and no network runs.
    assert page.area("horse") == f"{100 * expected.areas['horse']:.1f}"
    slider = page.one("#threshold input[type=range]")
    for _ in range(15):
        slider.send_keys("\ue014")  # the right arrow
    moved = expected.relabel(background_threshold=expected.settings.background_threshold + 0.15)
    assert abs(moved.areas["horse"] - expected.areas["horse"]) > 0.01
    page.until(lambda: page.area("horse") == f"{100 * moved.areas['horse']:.1f}")
    assert calls - before == ran

    # Files, at the threshold that is set now.
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": False}
    )
    for what, name in (("labels", "labels.png"), ("overlay", "overlay.png"), ("coco", "coco.json")):
        page.one(f"[data-what={what}]").click()
        page.until(lambda name=name: (tmp_path / name).is_file())
    assert np.array_equal(read_label_png(tmp_path / "labels.png"), moved.labels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "overlay.png")), np.asarray(moved.overlay(opacity=0.55)))
    assert json.loads((tmp_path / "coco.json").read_text()) == moved.to_coco(file_name="picture")
    assert calls - before == ran

    # Nothing came from anywhere else.
    others = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map((r) => r.name)"
        ".filter((n) => !n.startsWith(location.origin) && !n.startsWith('data:'))"
    )
    assert others == []


def near_other(result: Any) -> np.ndarray:
    """Where a pixel, or the next one in its row or column, has a class that is not the first."""
    other = result.labels > 1
    near = other.copy()
    near[:-1] |= other[1:]
    near[:, :-1] |= other[:, 1:]
    return near


def test_heatmaps_and_both_stages_side_by_side(page: Page, expected: Any) -> None:
    page.one("#example").click()
    page.until(lambda: page.all("#classes .chip"))
    page.segment()
    labels = page.pixels()
    page.after(lambda: page.row("horse").find_element("css selector", "button").click())
    heat = page.pixels()
    assert np.abs(heat - labels).mean() > 5
    assert page.one(".heat-class").get_attribute("value") == "0"
    assert page.driver.execute_script("return document.querySelector('.tip').hidden")

    page.after(lambda: page.one("[data-mode=labels]").click())
    assert np.array_equal(page.pixels(), labels)
    page.after(lambda: page.one(".compare input").click())
    both = page.pixels()
    middle = both.shape[1] // 2
    assert np.array_equal(both[:, middle + 1 :], labels[:, middle + 1 :])
    assert not np.array_equal(both[:, :middle], labels[:, :middle])
    page.after(lambda: page.one(".divider").send_keys("\ue012"))  # the left arrow
    assert int(page.one(".divider").get_attribute("aria-valuenow")) == 48
