"""The page in a real browser: class maps that are many and large, and a browser that cannot read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_in_browser import HEIGHT, WIDTH, Page, in_a_browser

from cliper.web.page.run import serving
from cliper.web.page.view import SHEET

pytestmark = in_a_browser

ACROSS = 10  # each of 100 classes is in one of 10 x 10 cells of the picture
TALL, WIDE = 660, 500  # of a class map; one below the other they would be taller than any browser's canvas


class Cells:
    """A refiner whose maps are known: class ``c`` is at cell ``c``, and nowhere else."""

    name = "cells"

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def refine(self, pictures: Sequence[Any], maps: Sequence[Any], settings: Any, seed: int = 0) -> list[Any]:
        refined = []
        for stack in maps:
            made = torch.zeros(len(stack), TALL, WIDE)
            for index, one in enumerate(made):
                row, column = divmod(index, ACROSS)
                high, wide = TALL // ACROSS, WIDE // ACROSS
                one[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = 0.5 + index / 1000
            refined.append(made)
        return refined


@pytest.fixture(scope="module")
def address(small: Any) -> Iterator[str]:
    segmenter = small.with_refiner(None)
    segmenter.refiner = Cells()
    with serving(segmenter, lambda name: segmenter, port=0) as (place, _):
        yield place


def test_the_heatmap_of_the_last_of_a_hundred_classes(page: Page, photo_file: Path) -> None:
    assert 100 * TALL > 65_535, "a canvas of all of them would be taller than Chromium's may be"
    on_one = (SHEET // WIDE) * (SHEET // TALL)
    page.upload(photo_file)
    page.type("; ".join(f"class {number}" for number in range(100)))
    page.segment()
    page.set(".opacity input", 100)
    for index in (99, 0, on_one - 1, on_one, 50):
        page.after(lambda index=index: page.row(f"class {index}").find_element("css selector", "button").click())
        row, column = divmod(index, ACROSS)
        high, wide = HEIGHT / ACROSS, WIDTH / ACROSS
        # Inside the cell, away from where its border is smoothed, the brightest colour; outside no pixel has it.
        inner = np.zeros((HEIGHT, WIDTH), bool)
        inner[
            round(row * high) + 3 : round((row + 1) * high) - 3,
            round(column * wide) + 3 : round((column + 1) * wide) - 3,
        ] = True
        outer = np.ones((HEIGHT, WIDTH), bool)
        outer[
            max(0, round(row * high) - 3) : round((row + 1) * high) + 3,
            max(0, round(column * wide) - 3) : round((column + 1) * wide) + 3,
        ] = False
        brightest = (page.pixels() == (252, 255, 164)).all(-1)
        assert brightest[inner].all(), index
        assert not brightest[outer].any(), index
        x, y = int((column + 0.5) * wide), int((row + 0.5) * high)
        assert page.point(x, y) == f"class {index} {0.5 + index / 1000:.2f}"
        assert page.point(WIDTH - x, HEIGHT - y) == f"class {index} 0.00"


def test_a_result_that_the_browser_cannot_read_is_said(page: Page, photo_file: Path) -> None:
    page.upload(photo_file)
    page.type("horse; dog")
    page.driver.execute_script(
        "window.whole = window.createImageBitmap;"
        "window.createImageBitmap = () => Promise.reject(new Error('no memory for it'));"
    )
    page.press()
    note = page.one(".note")
    page.until(lambda: note.text == "This browser could not read the result: no memory for it")
    assert note.get_attribute("data-kind") == "error"
    assert page.drawn() == 0
    page.driver.execute_script("window.createImageBitmap = window.whole")
    page.after(lambda: page.one("#threshold input[type=range]").send_keys("\ue014"))
    page.until(lambda: note.text == "")
