"""The gallery: the content of its files, and the page in a browser if there is one."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from format_helpers import CLASSES, NAMES, labels_of, make_run, result_of
from PIL import Image

from browser import CHROMIUM, DRIVER, Tab, open_browser
from cliper.formats import FormatOptions, ImageInfo, ImageOutput, find_format, gallery
from cliper.formats.gallery import gallery_card


def cards_of(page: Path) -> list[dict]:
    text = page.read_text()
    assert text.startswith("showPage(")
    return json.loads(text[text.index("[") : text.rindex("]") + 1])


def labels_in(card: dict) -> np.ndarray:
    labels, lengths = np.array(card["runs"]).reshape(-1, 2).T
    width, height = card["grid"]
    return np.repeat(labels, lengths).reshape(height, width)


def test_cards_hold_thumbnails_labels_and_areas(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("gallery"))
    assert [path.relative_to(tmp_path).as_posix() for path in run.paths] == ["gallery/index.html", "gallery/pages/1.js"]
    cards = cards_of(run.paths[1])
    assert [card["name"] for card in cards] == list(NAMES)
    for card in cards:
        result = run.results[card["name"]]
        np.testing.assert_array_equal(labels_in(card), result.labels)  # smaller than a thumbnail, so not scaled
        thumbnail = Image.open(io.BytesIO(base64.b64decode(card["image"].removeprefix("data:image/jpeg;base64,"))))
        assert list(thumbnail.size) == card["grid"] == card["size"] == [60, 40]
        shares = dict(zip(card["areas"][::2], card["areas"][1::2], strict=True))
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert {0, *shares} == {0, *np.unique(result.labels)}
        assert shares[3] == pytest.approx(result.areas[CLASSES[2]], abs=1e-5)


def test_large_images_become_thumbnails() -> None:
    labels = np.zeros((500, 1000), int)
    labels[:, 700:] = 4
    card = gallery_card(result_of(labels), "a")
    assert card["grid"] == [640, 320]
    assert card["runs"][:4] == [0, 448, 4, 192]
    assert card["areas"] == [0, 0.7, 4, 0.3]
    assert gallery_card(result_of(np.ones((2, 5000), int)), "a")["grid"] == [640, 1]


def test_page_loads_nothing_from_the_network_and_escapes_names(tmp_path: Path) -> None:
    evil = "</script><b>&\u2028"
    format, info = find_format("gallery"), ImageInfo(evil, 60, 40)
    path = tmp_path / f"a{format.suffix}"
    format.write(result_of(labels_of(1), (evil, "x", "y")), path, info, FormatOptions())
    index, page = format.merge([ImageOutput(info, path)], tmp_path, (evil, "x", "y"), FormatOptions())
    text = index.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("<!doctype html>", ""))
    assert text.count("</script>") == 1
    assert "<b>" not in text
    assert page.read_text().isascii()


def test_index_knows_the_classes_of_each_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_IMAGES_PER_PAGE", 2)
    run = make_run(tmp_path, find_format("gallery"))
    text = run.paths[0].read_text()
    index = json.loads(re.search(r"const run = (.*);$", text, re.MULTILINE)[1])
    found = [set(np.unique(result.labels)) for result in run.results.values()]
    assert [set(labels) for labels in index["pages"]] == [found[0] | found[1], found[2]]
    assert index["counts"] == [sum(label in labels for labels in found) for label in range(4)]
    assert index["images"] == 3


def test_failed_images_are_listed_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_MAX_FAILURES", 2)
    write = find_format("gallery").write_failed
    assert write(iter(()), tmp_path) == []
    (path,) = write(((f"\udcff{number}.jpg", "damaged\u2028") for number in range(5)), tmp_path)
    assert path == tmp_path / "gallery" / "failed.js"
    text = path.read_text()
    assert text.startswith('showFailed(5, [["')
    assert len(json.loads(text[text.index("[") : text.rindex("]") + 1])) == 2


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tab]:
    """The gallery of three images, two a page, in a browser; an image failed."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver on the path")
    monkeypatch.setattr(gallery, "_IMAGES_PER_PAGE", 2)
    run = make_run(tmp_path, find_format("gallery"))
    find_format("gallery").write_failed([("bad<b>.jpg", "not an image")], tmp_path)
    driver = open_browser(tmp_path)
    yield Tab(driver, run.paths[0].as_uri())
    errors = [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    driver.quit()
    assert not errors


def names(page: Tab) -> list[str]:
    return [caption.text for caption in page.all("figcaption .file")]


def class_at(page: Tab, x: float, y: float) -> str:
    """The name shown with the mouse at a position of the first image, in shares of its sides."""
    from selenium.webdriver.common.action_chains import ActionChains

    frame = page.all(".stage .frame")[0]
    left, top = round((x - 0.5) * frame.size["width"]), round((y - 0.5) * frame.size["height"])
    ActionChains(page.driver).move_to_element_with_offset(frame, left, top).perform()
    page.wait(lambda: page.one("#tip").is_displayed())
    return page.text("#tip")


@pytest.mark.full
@pytest.mark.enable_socket
def test_pages_classes_and_failed_images_are_shown(page: Tab) -> None:
    page.wait(lambda: names(page) == list(NAMES[:2]))
    assert page.text("#count") == "3 images"
    assert page.text("#failures summary") == "1 image failed"
    page.one("#failures summary").click()
    assert page.text("#failures dl").splitlines() == ["bad<b>.jpg", "not an image"]
    page.one("#after").click()
    page.wait(lambda: names(page) == [NAMES[2]])
    labels = labels_of(9)
    for x, y in ((0, 0), (59, 0), (30, 20), (0, 39)):
        assert class_at(page, (x + 0.5) / 60, (y + 0.5) / 40) == ("background", *CLASSES)[labels[y, x]]


@pytest.mark.full
@pytest.mark.enable_socket
def test_images_are_filtered_by_class(page: Tab, tmp_path: Path) -> None:
    page.wait(lambda: names(page) == list(NAMES[:2]))
    with_class = {
        label: [name for number, name in enumerate(NAMES, 7) if (labels_of(number) == label).any()]
        for label in (1, 2, 3)
    }
    for label, button in enumerate(page.all("#legend button"), 1):
        assert button.text.split("\n")[-1].endswith(str(len(with_class[label])))
    page.all("#legend button")[0].click()
    page.wait(lambda: page.text("#count") == f"{len(with_class[1])} images of 3 with dog")
    assert page.all("#legend button")[0].get_attribute("aria-pressed") == "true"
    page.wait(lambda: names(page) == with_class[1][:2])
    page.all("#legend button")[0].click()
    page.wait(lambda: page.text("#count") == "3 images")


@pytest.mark.full
@pytest.mark.enable_socket
def test_image_is_enlarged_and_browsed_by_keyboard(page: Tab) -> None:
    from selenium.webdriver.common.keys import Keys

    page.wait(lambda: names(page) == list(NAMES[:2]))
    small = page.all(".stage .frame")[1].size["width"]
    page.all(".stage .frame")[1].send_keys(Keys.ENTER)
    page.wait(lambda: page.one("#large").is_displayed())
    assert page.one("#large .frame").size["width"] > 2 * small
    assert page.text("#large .file").startswith(NAMES[1])
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)  # on the next page
    page.wait(lambda: page.text("#large .file").startswith(NAMES[2]))
    assert not page.one("#right").is_enabled()
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    page.wait(lambda: page.text("#large .file").startswith(NAMES[1]))
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.one("#large").is_displayed())
