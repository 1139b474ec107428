"""A page of its own for each test, and what a visitor fills in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_in_browser import CHROMIUM, DRIVER, HEIGHT, WIDTH, Page
from PIL import Image

from cliper.examples import example_photo
from cliper.web.page.actions import Actions, Form
from cliper.web.page.form import AUTO
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.models import Models
from cliper.web.page.run import serving


@pytest.fixture(scope="module", autouse=True)
def _temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary folders among the tests' own: Gradio makes the first one of a process again for later pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
        yield


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Where pictures are uploaded to."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def make_actions(tiny: Any, uploads: Path) -> Callable[..., Actions]:
    """The page's work with the tiny CLIP; limits by keyword."""

    def load(name: str) -> Any:
        raise AssertionError(f"{name} was loaded")

    def make(**limits: Any) -> Actions:
        bounds = Limits(**limits)
        return Actions(Models(tiny, load), Kept(uploads, bounds), bounds, uploads)

    return make


@pytest.fixture
def form(tiny: Any, uploads: Path, make_picture: Callable[..., Any]) -> Callable[..., Form]:
    """A form that is right but for what is given."""
    path = uploads / "picture.png"
    make_picture().save(path)

    def fill(**changed: Any) -> Form:
        settings = tiny.settings
        values = {
            "picture": str(path),
            "classes": ["dog", "cat"],
            "background": AUTO,
            "words": [],
            "model": Models(tiny, lambda name: tiny).start_model,
            "refiner": "none",
            "recipe": settings.recipe,
            "size": float(settings.size),
            "window": 0,
            "score": 0.0,
            "background_threshold": 0.1,
        }
        return Form(**{**values, **changed})

    return fill


@pytest.fixture(scope="module")
def small(mini: Any) -> Any:
    """The bundled model at a small size, its own layers as refiner."""
    return mini.with_settings(mini.settings.replace(size=224)).with_refiner("self")


@pytest.fixture(scope="module")
def calls(small: Any) -> Iterator[Counter[str]]:
    """How often each network of the page's model ran."""
    counted: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("encode_images", "patch_features"):
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


@pytest.fixture
def page(chromium: Any, address: str) -> Page:
    return Page(chromium, address)
