"""The page in ``examples/browser``, in a headless Chromium that reaches no other machine."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper
from browser import CHROMIUM, DRIVER, Tab, open_browser

PAGE = Path(__file__).parents[2] / "examples" / "browser"

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1", "::1"]),
    pytest.mark.enable_socket,
    pytest.mark.full,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver"),
    pytest.mark.skipif(
        not (PAGE / "onnxruntime-web").is_dir(), reason="needs onnxruntime-web; make onnxruntime-web fetches it"
    ),
]

WORDS = "horse; grass"
# Share of pixels with the labels of the package: as in test_onnx_example.py; the browser decodes JPEG on its own.
AGREEMENT = 0.999

READ = """
const { labels, width, height, seconds } = globalThis.result;
return [Array.from(labels), width, height, seconds];
"""


class StaticFiles(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each request."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(export_to: Callable[..., Path], tmp_path: Path) -> Iterator[str]:
    """The page with an export of the bundled checkpoint beside it, on a server of static files."""
    folder = Path(shutil.copytree(PAGE, tmp_path / "page", ignore=shutil.ignore_patterns("export")))
    shutil.copytree(export_to("mini"), folder / "export")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(StaticFiles, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tab(address: str, tmp_path: Path) -> Iterator[Tab]:
    driver = open_browser(tmp_path, arguments=["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"])
    yield Tab(driver, address)
    driver.quit()


def test_photo_and_two_words_give_the_label_map_of_the_package(
    tab: Tab, tmp_path: Path, mini: cliper.Segmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    with Image.open(cliper.example_photo()) as image:
        image.resize((480, 340)).save(photo, quality=95)
    tab.one("#file").send_keys(str(photo))
    tab.wait(lambda: tab.one("#run").is_enabled())
    loaded = tab.text("#status")
    words = tab.one("#words")
    words.clear()
    words.send_keys(WORDS)
    tab.one("#run").click()
    tab.wait(lambda: tab.text("#status").startswith(("Segmented", "Failed")))
    assert tab.text("#status").startswith("Segmented in "), tab.text("#status")
    values, width, height, seconds = tab.driver.execute_script(READ)
    with capsys.disabled():
        print(f"\n{loaded} Segmented in {seconds} s, the embedding of the words included.")
    labels = np.array(values).reshape(height, width)
    expected = mini(photo, WORDS).labels
    assert set(np.unique(expected)) == {0, 1, 2}
    assert (labels == expected).mean() >= AGREEMENT
    assert [item.text for item in tab.all("#legend span")] == ["horse", "grass"]
    assert not [entry for entry in tab.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_page_names_an_error(tab: Tab, tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    make_image().save(tmp_path / "photo.png")
    tab.one("#file").send_keys(str(tmp_path / "photo.png"))
    tab.wait(lambda: tab.one("#run").is_enabled())
    tab.one("#words").clear()
    tab.one("#run").click()
    tab.wait(lambda: tab.text("#status").startswith("Failed"))
    assert tab.text("#status") == 'Failed: name the classes, such as "dog; grass"'
