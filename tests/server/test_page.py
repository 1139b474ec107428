"""The page, in a headless Chromium as Debian packages it."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page import CHROMIUM, DRIVER, Page, open_browser
from PIL import Image

from cliper.examples import example_photo
from cliper.segmenter import Segmenter
from cliper.server.access import listen
from cliper.server.models import Limits, ServedModel
from cliper.server.run import Server
from cliper.server.service import Service

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1", "::1"]),
    pytest.mark.enable_socket,
    pytest.mark.full,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def serve_page() -> Iterator[Callable[..., str]]:
    """Serve a segmenter; the address."""
    with ExitStack() as ends:

        def serve(segmenter: Segmenter, **options: Any) -> str:
            socket, ready = listen("127.0.0.1", 0), threading.Event()
            server = Server(Service(ServedModel(segmenter, Limits()), loopback_only=True, **options), ready.set)
            thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
            ends.callback(thread.join, 30)
            ends.callback(setattr, server, "should_exit", True)
            thread.start()
            assert ready.wait(60)
            return f"http://127.0.0.1:{socket.getsockname()[1]}"

        yield serve


@pytest.fixture(scope="module")
def segmenter(mini: Any) -> Segmenter:
    """The bundled model at a small size, with a refiner."""
    found: Segmenter = mini.with_settings(mini.settings.replace(size=224)).with_refiner("self")
    return found


@pytest.fixture(scope="module")
def address(serve_page: Callable[..., str], segmenter: Segmenter) -> str:
    return serve_page(segmenter)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")
def driver(folder: Path) -> Iterator[Any]:
    found = open_browser(folder)
    yield found
    found.quit()


@pytest.fixture
def page(driver: Any, address: str) -> Iterator[Page]:
    driver.get_log("browser")
    yield Page(driver, address).ready()
    problems = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert [text for text in problems if "status of 4" not in text] == []  # no script error, nothing against the CSP


@pytest.fixture(scope="module")
def photo(folder: Path) -> Path:
    path = folder / "small.png"
    Image.open(example_photo()).resize((320, 208)).save(path)
    return path


def test_first_click_shows_the_example(page: Page) -> None:
    assert page.words() == ["horse"]
    assert "mini" in page.segment()
    assert 5 < page.area("horse") < 95
    assert "horse" in page.one(".stage canvas").get_attribute("aria-label")
    assert page.point(0.02, 0.02) == "background"


def test_labels_of_the_page_are_those_of_the_segmenter(page: Page, photo: Path, segmenter: Segmenter) -> None:
    page.upload(photo)
    page.set_words("horse, cow; person: man, woman")
    assert page.words()[:2] == ["horse", "cow"]
    page.segment()
    page.set("#opacity", 100)
    names = ["horse", "cow", "person"]
    result = segmenter(photo, page.words())
    assert tuple(names) == result.classes
    areas = {name: page.area(name) for name in names}
    assert areas == pytest.approx({name: 100 * share for name, share in result.areas.items()}, abs=0.15)
    # Okabe and Ito's orange: the first class. Borders are white, so only the inner part is compared.
    shown = (page.pixels() == [230, 159, 0]).all(-1)
    assert not shown[result.labels != 1].any()
    assert shown.sum() > 0.8 * (result.labels == 1).sum()


def test_sliders_and_boxes_send_no_request(page: Page) -> None:
    page.set_words("horse, person")
    page.segment()
    assert "below the threshold 0.50: 0." in page.row("person").text
    assert "turns it on" in page.row("person").text
    count = "return performance.getEntriesByType('resource').length"
    before, area = page.driver.execute_script(count), page.area("horse")
    page.set("#sensitivity", 0.99)
    assert "below the threshold" not in page.row("person").text
    page.set("#sensitivity", 0.25)
    assert "below the threshold 0.75: 0." in page.row("person").text
    page.driver.execute_script("document.querySelector('details').open = true")
    page.one("#reset").click()
    assert page.area("horse") == area
    page.set("#score", 1)
    page.set("#pixel", 0.99)
    assert page.area("horse") < area
    page.one("#reset").click()
    coloured = page.pixels()
    page.row("horse").find_element("css selector", "input").click()
    assert not np.array_equal(page.pixels(), coloured)
    assert page.point(0.5, 0.6) == "background"
    page.row("horse").find_element("css selector", "input").click()
    assert np.array_equal(page.pixels(), coloured)
    assert page.driver.execute_script(count) == before


def test_heatmap_comparison_and_zoom(page: Page) -> None:
    page.segment()
    labels = page.pixels()
    page.row("horse").find_element("css selector", "button").click()
    assert page.one('[data-mode="heat"]').get_attribute("aria-pressed") == "true"
    assert not np.array_equal(page.pixels(), labels)
    name, value = page.point(0.5, 0.6).split()
    assert name == "horse"
    assert 0 <= float(value) <= 1
    page.one('[data-mode="labels"]').click()
    page.one("#compare-on").click()
    compared = page.pixels()
    assert not np.array_equal(compared, labels)
    page.set("#split", 0)
    right = page.pixels()
    assert np.array_equal(right[:, 2:], labels[:, 2:])  # but for the line itself
    page.one("#compare-on").click()
    page.one("#zoom-in").click()
    zoomed = page.pixels()
    assert not np.array_equal(zoomed, labels)
    page.one(".stage canvas").send_keys("0")
    assert np.array_equal(page.pixels(), labels)


def test_several_images_errors_and_undo(page: Page, photo: Path, folder: Path) -> None:
    broken = folder / "broken.png"
    broken.write_bytes(photo.read_bytes()[:2000])
    page.upload(photo, broken)
    page.set_words("horse")
    assert page.segment() == "1 of 3 images failed."
    assert "broken.png: " in page.text("#error")
    states = [thumb.get_attribute("data-state") for thumb in page.all("#strip .thumb")]
    assert states == ["done", "done", "error"]
    page.all("#strip .thumb")[0].click()
    assert page.one(".stage canvas").is_displayed()
    page.all("#strip .remove")[2].click()
    assert len(page.all("#strip .thumb")) == 2
    page.set_words("dog")
    page.one("#undo").click()
    page.one("#undo").click()
    assert page.words() == ["horse"]
    page.set_words("")
    page.one("#run").click()
    assert page.text("#error") == "name at least one class to find"


def download(page: Page, folder: Path, button: str, name: str) -> bytes:
    path = folder / "downloads" / name
    path.unlink(missing_ok=True)
    page.one(button).click()
    page.wait(path.exists)
    return path.read_bytes()


def test_downloads(page: Page, photo: Path, folder: Path, segmenter: Segmenter) -> None:
    page.upload(photo)
    page.segment()
    from selenium.webdriver.support.ui import Select

    format = Select(page.one("#format"))
    format.select_by_value("labels")
    labels = np.asarray(Image.open(io.BytesIO(download(page, folder, "#download-one", "small.labels.png"))))
    assert (labels == segmenter(photo, ["horse"]).labels).mean() > 0.999
    format.select_by_value("overlay")
    overlay = Image.open(io.BytesIO(download(page, folder, "#download-one", "small.overlay.png")))
    assert overlay.width >= 320
    format.select_by_value("coco")
    with zipfile.ZipFile(io.BytesIO(download(page, folder, "#download-all", "coco.zip"))) as archive:
        (merged,) = (name for name in archive.namelist() if not name.startswith(("example", "small")))
        assert len(json.loads(archive.read(merged))["images"]) == 2


def test_by_keyboard_alone(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(page.driver).send_keys(*keys).perform()

    reached = []
    for _ in range(12):
        press(Keys.TAB)
        reached.append(page.driver.execute_script("return document.activeElement.id"))
    assert {"pick", "class-input", "background", "run"} <= set(reached)
    page.driver.execute_script("document.querySelector('#class-input').focus()")
    press("cow", Keys.ENTER, Keys.BACKSPACE, "sheep", Keys.ENTER)
    assert page.words() == ["horse", "sheep"]
    press(Keys.TAB, Keys.TAB)
    assert page.driver.execute_script("return document.activeElement.id") == "run"
    press(Keys.ENTER)
    page.wait(lambda: page.all("#legend tr") and page.one("#run").is_enabled())
    page.one("#sensitivity").send_keys(Keys.ARROW_LEFT)
    assert page.text("#sensitivity-value") == "0.49"


def test_controls_have_names_and_roles(page: Page) -> None:
    """As Chromium's accessibility tree has them."""
    page.segment()
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named: dict[str, list[str]] = {}
    for node in tree:
        if not node.get("ignored"):
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "slider", "checkbox", "combobox", "textbox", "image"):
        assert named.get(role), role
        assert all(named[role]), (role, named[role])
    assert "show horse" in named["checkbox"]
    assert "Classes to find" in named["textbox"]
    assert named["status"]
    assert len(named["heading"]) == 1


def test_phone(page: Page) -> None:
    driver = page.driver
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        driver.refresh()
        page.ready()
        page.segment()
        overflow = driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0
        page.wait(
            lambda: driver.execute_script(
                "const b = document.querySelector('.stage canvas').getBoundingClientRect();"
                "return b.top >= 0 && b.bottom <= innerHeight"
            )
        )
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_class_names_are_text_not_markup(page: Page) -> None:
    word = "<img src=x onerror=alert(1)>"
    page.set_words(word)
    page.segment()
    assert page.words() == [word]
    assert page.row(word)
    assert page.text("#notes").startswith(word)  # not among the words that mini was taught
    assert page.all("img") == []


def test_token_is_asked_for_and_served_words_and_sensitivity_are_set(
    driver: Any, serve_page: Callable[..., str], segmenter: Segmenter
) -> None:
    example = {"classes": ["dog", "person: man, woman"], "background": ["wall"]}
    keen = segmenter.with_settings(segmenter.settings.replace(sensitivity=0.7))
    page = Page(driver, serve_page(keen, token="secret", example=example))
    page.wait(lambda: page.one("#login").is_displayed())
    assert page.text("#login-text") == "This server requires a token."
    page.one("#token").send_keys("wrong\n")
    page.wait(lambda: page.one("#login").is_displayed() and not page.one("#token").get_attribute("value"))
    assert page.text("#login-text") == "The token was refused. Enter another one."
    page.one("#token").send_keys("secret\n")
    page.ready()
    assert page.words() == example["classes"]
    assert page.text("#background-words .word") == "wall"
    assert "mini" in page.segment()
    assert page.text("#sensitivity-value") == "0.70"  # the served one
