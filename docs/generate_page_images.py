"""Make the images of the page in docs/images: screenshots, and a short animation for README.

    python docs/generate_page_images.py

Needs chromium, chromedriver and the development packages. The bundled checkpoint is served with the refiner ``self``.
"""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "tests" / "server"))

from page import Page, open_browser  # noqa: E402

WIDE, NARROW = (1320, 1000), (390, 1000)


@contextmanager
def served() -> Iterator[str]:
    """The address of `cliper serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["serve", "--port", str(port), "--refiner", "self", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-m", "cliper", *arguments], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/healthz").close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def shot(driver: Any) -> Image.Image:
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def scheme(driver: Any, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_page(driver: Any, address: str, size: tuple[int, int], *, mobile: bool) -> Page:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return Page(driver, address).ready()


def animation(page: Page) -> tuple[list[Image.Image], list[int]]:
    """Frames and their milliseconds: one click, then the sensitivity, then other words."""
    frames = [(shot(page.driver), 1200)]
    page.segment()
    frames.append((shot(page.driver), 1500))
    for value in (0.4, 0.3, 0.2, 0.3, 0.5, 0.65, 0.8, 0.65, 0.5):
        page.set("#sensitivity", value)
        time.sleep(0.2)
        frames.append((shot(page.driver), 350))
    page.set_words("horse, grass, sky")
    frames.append((shot(page.driver), 1000))
    page.segment()
    frames.append((shot(page.driver), 2500))
    images, durations = zip(*frames, strict=True)
    return [image.resize((880, round(880 * image.height / image.width))) for image in images], list(durations)


def main() -> None:
    with served() as address, tempfile.TemporaryDirectory() as folder:
        driver = open_browser(Path(folder))
        try:
            for name, size, mobile in (("wide", WIDE, False), ("narrow", NARROW, True)):
                for colours in ("light", "dark"):
                    scheme(driver, colours)
                    page = open_page(driver, address, size, mobile=mobile)
                    page.segment()
                    time.sleep(0.7)  # the result scrolls into view
                    shot(driver).quantize(256).save(IMAGES / f"page-{name}-{colours}.png", optimize=True)
            scheme(driver, "light")
            page = open_page(driver, address, (1320, 900), mobile=False)
            images, durations = animation(page)
        finally:
            driver.quit()
    path = IMAGES / "page.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, quality=60, method=6)
    print(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
