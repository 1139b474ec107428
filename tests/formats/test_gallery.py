"""The gallery: the content of its files, and the page in a browser if there is one."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from format_helpers import CLASSES, NAMES, labels_of, make_run, result_of
from PIL import Image

from cliper.formats import FormatOptions, ImageInfo, ImageOutput, find_format, gallery
from cliper.formats.gallery import gallery_card

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
    assert card["grid"] == [360, 180]
    assert card["runs"][:4] == [0, 252, 4, 108]
    assert card["areas"] == [0, 0.7, 4, 0.3]
    assert gallery_card(result_of(np.ones((2, 5000), int)), "a")["grid"] == [360, 1]


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


@pytest.fixture
def page_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's HTML in a browser: the second page of two, with the pointer over its first image."""
    if BROWSER is None:
        pytest.skip("needs chromium on the path")
    monkeypatch.setattr(gallery, "_IMAGES_PER_PAGE", 2)
    run = make_run(tmp_path, find_format("gallery"))
    move = """<script>setTimeout(() => {
      const frame = document.querySelector(".frame"), box = frame.getBoundingClientRect();
      const move = (x, y) => new PointerEvent("pointermove", {clientX: box.left + x * box.width / 60,
                                                              clientY: box.top + y * box.height / 40});
      for (const [x, y] of [[0.5, 0.5], [59.5, 0.5], [30.5, 20.5], [0.5, 39.5]]) {
        frame.dispatchEvent(move(x, y));
        const shown = document.createElement("p");
        shown.className = "shown";
        shown.textContent = document.getElementById("tip").textContent;
        document.body.append(shown);
      }
    }, 300)</script></html>"""
    page = run.paths[0].with_name("try.html")
    page.write_text(run.paths[0].read_text().replace("</html>", move))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    done = subprocess.run(
        [
            BROWSER,
            *flags,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            f"{page.as_uri()}#2",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.full
def test_browser_shows_the_class_under_the_pointer(page_html: str) -> None:
    labels = labels_of(9)
    names = ["background", "dog", "wooden bench", "Bär &amp; &lt;Co&gt;"]
    expected = [names[labels[y, x]] for y, x in ((0, 0), (0, 59), (20, 30), (39, 0))]
    assert re.findall(r'<p class="shown">(.*?)</p>', page_html) == expected
    assert page_html.count("<figure>") == 1
    assert f'alt="{NAMES[2]}"' in page_html
    assert "3 images" in page_html
