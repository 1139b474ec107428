"""The page in a real browser: headless Chromium, as Debian packages it."""

from __future__ import annotations

import base64
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliper.examples import example_photo
from cliper.formats import read_label_png
from cliper.web.page.run import serving

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1", "::1"]),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::Warning:gradio.queueing"),  # what it does with pandas is its business
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here (see .ci/run)"),
]
SECONDS = 60  # at most, for anything that is waited for
WIDTH, HEIGHT = 320, 208  # of the photo that is uploaded


@pytest.fixture(scope="module")
def small(mini: Any) -> Any:
    """The bundled model at a small size, its own layers as refiner."""
    return mini.with_settings(mini.settings.replace(size=224)).with_refiner("self")


@pytest.fixture(scope="module")
def calls(small: Any) -> Iterator[Counter[str]]:
    """How often each network of the page's model ran."""
    counted: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("encode_pictures", "patch_features"):
            run = getattr(small.encoder, name)

            def count(*values: Any, name: str = name, run: Any = run, **more: Any) -> Any:
                counted[name] += 1
                return run(*values, **more)

            patch.setattr(small.encoder, name, count)
        yield counted


@pytest.fixture(scope="module")
def address(small: Any, calls: Counter[str]) -> Iterator[str]:
    with serving(small, lambda name: small, port=0) as (place, _):
        yield place


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    folder = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1320,1250",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.open(example_photo()).resize((WIDTH, HEIGHT)).save(path)
    return path


class Page:
    """The page in one tab, as a person uses it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)
        self.until(lambda: self.all("#classes input") and self.all("#picture input[type=file]"))

    def until(self, done: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, SECONDS, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: done())

    def all(self, selector: str) -> list[Any]:
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def upload(self, path: Path) -> None:
        self.one("#picture input[type=file]").send_keys(str(path))
        self.until(lambda: self.all("#picture img"))

    def type(self, words: str, where: str = "#classes") -> None:
        before = len(self.all(f"{where} .chip"))
        self.one(f"{where} input").send_keys(f"{words}\n")
        self.until(lambda: len(self.all(f"{where} .chip")) > before)

    def status(self) -> tuple[str, str]:
        line = self.one("#status p")
        return line.get_attribute("data-kind"), line.text

    def press(self) -> None:
        """Segment, without waiting."""
        self.one("#run").click()

    def segment(self) -> str:
        """Segment, and wait until it is drawn."""
        drawn = self.drawn()
        self.press()
        self.until(lambda: self.drawn() > drawn)
        kind, text = self.status()
        assert kind == "done", text
        return text

    def drawn(self) -> int:
        return int(self.one(".cliper-viewer").get_attribute("data-drawn"))

    def after(self, act: Callable[[], Any]) -> None:
        """Do something, and wait until the viewer has drawn again."""
        drawn = self.drawn()
        act()
        self.until(lambda: self.drawn() > drawn)

    def pixels(self) -> np.ndarray:
        """What the viewer shows, [H, W, 3]."""
        width, height, data = self.driver.execute_script(
            "const c = document.querySelector('.cliper-viewer canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let s = ''; for (let i = 0; i < d.length; i++) s += String.fromCharCode(d[i]);"
            "return [c.width, c.height, btoa(s)];"
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3].astype(int)

    def point(self, x: int, y: int, *, touch: bool = False) -> str:
        """Move the mouse to, or tap, a pixel of the picture; what the page reads there."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        canvas = self.one(".cliper-viewer canvas")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        factor = canvas.size["width"] / WIDTH
        left = round((x + 0.5) * factor - canvas.size["width"] / 2)
        top = round((y + 0.5) * factor - canvas.size["height"] / 2)
        if touch:
            finger = PointerInput("touch", "finger")
            actions = ActionBuilder(self.driver, mouse=finger)
            actions.pointer_action.move_to(canvas, left, top).pointer_down().pointer_up()
            actions.perform()
        else:
            ActionChains(self.driver).move_to_element_with_offset(canvas, left, top).perform()
        self.until(lambda: self.one(".tip").is_displayed())
        return str(self.one(".tip").text)

    def set(self, selector: str, value: float) -> None:
        """Move a range of the viewer, which only the browser knows of."""
        self.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            self.one(selector),
            value,
        )

    def row(self, name: str) -> Any:
        return next(row for row in self.all(".legend tbody tr") if row.get_attribute("data-name") == name)

    def area(self, name: str) -> str:
        return str(self.row(name).text.split("\n")[-1].split("%")[0].split()[-1])


@pytest.fixture
def page(chromium: Any, address: str) -> Page:
    return Page(chromium, address)


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
    assert ran["encode_pictures"] == 1

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
    moved = expected.relabel(background=expected.settings.background + 0.15)
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


def test_names_are_text_and_never_markup(page: Page, photo_file: Path) -> None:
    names = [
        "<script>window.hurt = 1</script>",
        "<img src=x onerror=window.hurt=2>",
        "${window.hurt = 3}",
        "{{constructor}} `x`",
    ]
    page.upload(photo_file)
    for name in names:
        page.type(name)
    assert [chip.text for chip in page.all("#classes .word")] == names
    page.segment()
    assert {row.get_attribute("data-name") for row in page.all(".legend tbody tr")} - {None} == set(names)
    page.after(lambda: page.row(names[0]).find_element("css selector", "button").click())
    page.type(names[1])  # twice: the message holds the name
    page.press()
    page.until(lambda: page.status()[0] == "error")
    assert "given twice" in page.status()[1]
    assert page.driver.execute_script("return window.hurt === undefined")
    assert not page.all("#classes img, #classes script, #status img, .legend img, .legend script")


def test_bad_input_is_a_line_on_the_page(page: Page, tmp_path: Path) -> None:
    def said() -> str:
        before = page.status()
        page.press()
        page.until(lambda: page.status() != before and page.status()[0] == "error")
        return page.status()[1]

    assert "expected a picture, got none" in said()
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    page.one("#picture input[type=file]").send_keys(str(tmp_path / "broken.png"))
    page.until(lambda: page.all("#picture img"))
    assert "at least one class" in said()
    page.type("dog")
    text = said()
    assert text.startswith("expected a picture (JPEG")
    assert "Traceback" not in text
    assert not page.one(".legend").is_displayed()


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


_GIVE = """
const [kind, data] = arguments;
const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
const given = new DataTransfer();
given.items.add(new File([bytes], "photo.png", {type: "image/png"}));
const more = {bubbles: true, cancelable: true};
if (kind === "paste") {
  document.body.dispatchEvent(new ClipboardEvent("paste", {...more, clipboardData: given}));
} else {
  for (const name of ["dragenter", "dragover", "drop"]) {
    document.querySelector("#picture button").dispatchEvent(new DragEvent(name, {...more, dataTransfer: given}));
  }
}
"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Page, photo_file: Path, kind: str) -> None:
    page.driver.execute_script(_GIVE, kind, base64.b64encode(photo_file.read_bytes()).decode())
    page.until(lambda: page.all("#picture img"))
    page.one("#classes input").send_keys("horse")  # without Enter: leaving the field is enough
    assert f"of 1 class found in {WIDTH} x {HEIGHT} pixels" in page.segment()


def test_it_fits_a_phone(page: Page, photo_file: Path) -> None:
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        page.upload(photo_file)
        page.type("horse; a class with quite a long name, longer than the page is wide, and then some more of it")
        page.segment()
        widest = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert widest <= 390
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
