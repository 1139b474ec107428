"""The page as a person uses it: in a headless Chromium, as Debian packages it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECONDS = 60  # at most, for anything that is waited for
WIDTH, HEIGHT = 320, 208  # of the photo that is uploaded

in_a_browser = [
    pytest.mark.allow_hosts(["127.0.0.1", "::1"]),
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore::Warning:gradio.queueing"),  # what it does with pandas is its business
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here (see .ci/run)"),
]
"""Marks of a module whose tests use it."""


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
