"""The page in a headless Chromium, as a person uses it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECONDS = 60  # limit of every wait


def open_browser(folder: Path, size: tuple[int, int] = (1320, 1250)) -> Any:
    """A Selenium driver; downloads go to ``folder / "downloads"``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))


class Page:
    """The page in one tab."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, SECONDS, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition())

    def ready(self) -> Page:
        """Wait for the example photo."""
        self.wait(lambda: self.all("#strip .thumb") and self.one("#run").is_enabled())
        return self

    def all(self, selector: str) -> list[Any]:
        from selenium.webdriver.common.by import By

        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def text(self, selector: str) -> str:
        return str(self.one(selector).text)

    def words(self) -> list[str]:
        return [chip.text for chip in self.all("#classes .word")]

    def set_words(self, words: str) -> None:
        """Replace the classes."""
        for _ in self.words():
            self.one("#classes li:last-child button").click()
        self.one("#class-input").send_keys(words + "\n")

    def upload(self, *paths: Path) -> None:
        count = len(self.all("#strip .thumb"))
        self.one("#files").send_keys("\n".join(map(str, paths)))
        self.wait(lambda: len(self.all("#strip .thumb")) == count + len(paths))

    def segment(self) -> str:
        """Segment and wait for the end; the status line."""
        self.one("#run").click()
        self.wait(lambda: self.one("#run").is_enabled())
        return self.text("#status")

    def set(self, selector: str, value: float) -> None:
        """Move a slider."""
        self.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            self.one(selector),
            value,
        )

    def pixels(self) -> np.ndarray:
        """The canvas, [H, W, 3]."""
        width, height, data = self.driver.execute_script(
            "const c = document.querySelector('.stage canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let s = ''; for (let i = 0; i < d.length; i++) s += String.fromCharCode(d[i]);"
            "return [c.width, c.height, btoa(s)];"
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3].astype(int)

    def point(self, x: float, y: float) -> str:
        """Move the mouse to a position of the canvas, in shares of its sides; the tip."""
        from selenium.webdriver.common.action_chains import ActionChains

        canvas = self.one(".stage canvas")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        size = canvas.size
        left, top = round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])
        ActionChains(self.driver).move_to_element_with_offset(canvas, left, top).perform()
        self.wait(lambda: self.one(".tip").is_displayed())
        return self.text(".tip")

    def row(self, name: str) -> Any:
        return self.wait(lambda: self.one(f'#legend tr[data-name="{name}"]'))

    def area(self, name: str) -> float:
        """In percent."""
        return float(self.row(name).text.split(" %")[0].split()[-1])
