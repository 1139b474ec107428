"""What the page's buttons and sliders do, without the page: plain values in, plain values out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import CliperError, ImageError
from cliper.images import load_stream
from cliper.web.page.files import make_file
from cliper.web.page.form import (
    check_labelling,
    check_patches,
    read_background,
    read_classes,
    read_settings,
    read_thresholds,
)
from cliper.web.page.kept import Kept
from cliper.web.page.limits import Limits
from cliper.web.page.models import Models
from cliper.web.page.view import labels_view, scene_view

if TYPE_CHECKING:
    from PIL import Image

    from cliper.result import Segmentation

__all__ = ["Actions", "Form", "Status", "one_line"]

_LOG = logging.getLogger("cliper.web")

Status = dict[str, str]
"""``kind`` (``busy``, ``done`` or ``error``) and ``text``, one line."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a visitor filled in, unchecked."""

    picture: Any
    classes: Any
    background: Any
    words: Any
    model: Any
    refiner: Any
    recipe: Any
    size: Any
    window: Any
    score: Any
    background_threshold: Any


class Actions:
    """The page's work. Safe to call from several threads; only :meth:`segment` runs a network.

    Args:
        models: what can be chosen.
        kept: where results stay.
        limits: how much one visitor may ask for.
        uploads: the folder that pictures are uploaded to; no other file is opened.
    """

    def __init__(self, models: Models, kept: Kept, limits: Limits, uploads: Path) -> None:
        self.models, self.kept, self.limits = models, kept, limits
        self._uploads = uploads.resolve()

    def segment(self, form: Form, name: Any) -> Iterator[tuple[Status, Any]]:
        """Segment a picture, saying how far it is.

        Args:
            form: what was filled in.
            name: of the visitor's result so far, or ``""``; it is dropped when the new one is there.

        Yields:
            The status, and the name of the visitor's result: the old one until the last.
        """
        try:
            yield from self._segment(form, name)
        except Exception as error:
            yield {"kind": "error", "text": one_line(error)}, name

    def scene(self, name: Any, score: Any, background: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new result for the viewer: :func:`scene_view` with the ``name``, and :func:`labels_view`.

        Raises:
            CliperError: the result is no longer kept, or a threshold is out of range.
        """
        result = _at(self.kept.small(name), score, background)
        return {"name": name, **scene_view(result)}, labels_view(result)

    def move(self, name: Any, score: Any, background: Any) -> dict[str, Any]:
        """The labels at other thresholds; no network runs.

        Raises:
            CliperError: as :meth:`scene`.
        """
        return labels_view(_at(self.kept.small(name), score, background))

    def download(self, asked: dict[str, Any]) -> Path:
        """A file of what is shown.

        Args:
            asked: ``name`` of the result, the thresholds ``score`` and ``threshold`` (of the background), and
                ``what``, ``opacity`` and ``off`` as :func:`make_file` takes them.

        Raises:
            CliperError: as :meth:`scene`, or as :func:`make_file`.
        """
        name = asked.get("name")
        result = _at(self.kept.get(name), asked.get("score"), asked.get("threshold"))
        folder = self.kept.folder(name)
        return make_file(result, asked.get("what"), folder, opacity=asked.get("opacity"), off=asked.get("off"))

    def _segment(self, form: Form, name: Any) -> Iterator[tuple[Status, Any]]:
        if not isinstance(form.picture, str):
            raise ImageError("expected a picture, got none; drop one, paste one, or take the example")
        classes = read_classes(form.classes, self.limits)
        background = read_background(form.background, form.words, self.limits)
        settings = read_settings(self.models.settings(form.model), form.recipe, form.size, form.window, self.limits)
        settings = read_thresholds(settings, form.score, form.background_threshold)
        picture = self._load(form.picture)
        check_labelling(*picture.size, len(classes), self.limits)
        if not self.models.is_loaded(form.model, form.refiner):
            yield {"kind": "busy", "text": f"loading {_what(form.model, form.refiner)} ..."}, name
        segmenter = self.models.get(form.model, form.refiner).with_settings(settings)
        check_patches(*picture.size, settings.size, segmenter.encoder.patch_size, self.limits)
        yield {"kind": "busy", "text": f"reading {_count(len(classes), 'class', 'classes')} ..."}, name
        segmenter.encode_text(classes)  # a class that cannot be read is said before the picture is looked at
        yield {"kind": "busy", "text": f"segmenting {picture.width} x {picture.height} pixels ..."}, name
        started = time.perf_counter()
        result = segmenter(picture, classes, background=background)
        seconds = time.perf_counter() - started
        new = self.kept.put(result)
        self.kept.drop(name)
        found = sum(area > 0 for area in result.areas.values())
        text = (
            f"{_what(form.model, form.refiner)}: {found} of {_count(len(classes), 'class', 'classes')} found in "
            f"{picture.width} x {picture.height} pixels, {seconds:.1f} s"
        )
        yield {"kind": "done", "text": text}, new

    def _load(self, path: str) -> Image.Image:
        place = Path(path).resolve()
        if not place.is_relative_to(self._uploads):
            raise ImageError("expected a picture that was uploaded, got another file")
        try:
            if not place.is_file():  # opening a pipe could wait for ever
                raise FileNotFoundError
            with place.open("rb") as stream:
                return load_stream(stream, "your file", max_pixels=round(self.limits.megapixels * 1e6))
        except OSError:
            raise ImageError("the picture is no longer kept; upload it again") from None


def one_line(error: Exception) -> str:
    """An error for a visitor: ours as they are, others by kind only.

    Their words go to the log, with the traceback where it takes debugging messages, as with ``--debug``.
    """
    if isinstance(error, CliperError):
        return " ".join(str(error).split())
    traced = error if _LOG.isEnabledFor(logging.DEBUG) else None
    _LOG.warning("page: unexpected %s: %s", type(error).__name__, error, exc_info=traced)
    return f"something unexpected went wrong ({type(error).__name__}); the operator's log says more"


def _at(result: Segmentation, score: Any, background: Any) -> Segmentation:
    """The result at other thresholds; a field that was emptied says None: what it was stays."""
    was = result.settings
    now = read_thresholds(
        was,
        was.score_threshold if score is None else score,
        was.background_threshold if background is None else background,
    )
    return result.relabel(score_threshold=now.score_threshold, background_threshold=now.background_threshold)


def _what(model: str, refiner: str) -> str:
    return model if refiner == "none" else f"{model} with refiner {refiner}"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
