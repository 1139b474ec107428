"""A page of its own for each test, and what a visitor fills in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cliper.web.page.actions import Actions, Form
from cliper.web.page.form import AUTO
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.models import Models


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
