"""The page in a headless Chromium, as a person uses it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from browser import CHROMIUM, DRIVER, Tab, open_browser

__all__ = ["CHROMIUM", "DRIVER", "Page", "open_browser"]


class Page(Tab):
    """The page in one tab."""

    def ready(self) -> Page:
        """Wait for the example photo."""
        self.wait(lambda: self.all("#strip .thumb") and self.one("#run").is_enabled())
        return self

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
