"""One image and what to find in it, checked and ready for the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cliper.errors import ClassListError, ImageError
from cliper.prompts import ClassPrompt, load_templates, parse_classes, scene_background
from cliper.server.errors import HTTPError
from cliper.server.limits import Limits
from cliper.server.models import ServedModel
from cliper.server.schemas import SegmentParams
from cliper.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from cliper.segmenter import Segmenter

__all__ = ["SegmentRequest", "build_request"]

_MAX_CHARACTERS, _MAX_PROMPT = 100_000, 500


@dataclass(frozen=True, eq=False)
class SegmentRequest:
    """Input of the model.

    Args:
        image: decoded, RGB, upright.
        digest: of the image file, the key of what may be cached for the image.
        classes: at least one.
        background: background names, or none.
        segmenter: the served model with the settings of the request.
    """

    image: Image.Image
    digest: bytes
    classes: tuple[ClassPrompt, ...]
    background: tuple[ClassPrompt, ...]
    segmenter: Segmenter

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for requests that can share a batch."""
        segmenter = self.segmenter
        return (self.image.size, self.classes, self.background, segmenter.settings, segmenter.refiner is None)


def build_request(model: ServedModel, image: bytes, params: SegmentParams) -> SegmentRequest:
    """Check a request against the served model and its limits, then decode the image. Blocks: call it in a thread.

    Raises:
        HTTPError: 404 another model, 422 beyond the limits.
        InputError: an image, class or setting that cannot be used.
        ResourceError: memory ran out while the image was decoded.
    """
    limits = model.limits
    if params.model is not None and params.model.casefold() != model.name.casefold():
        raise HTTPError(404, f"model: expected {model.name}, which is served here, got another; leave it out")
    refined = _use_refiner(params.refiner, model)
    changes = params.settings.model_dump(exclude_none=True)
    settings = model.settings.replace(**changes)
    segmenter = model.with_settings(settings, refined=refined)
    classes = _parse_names(params.classes, "class", limits)
    background = _parse_background(params.background, classes, limits)
    _check_texts(classes, background, settings, limits)
    if not image:
        raise ImageError("image: expected an image, got 0 bytes; send its file")
    digest = hashlib.sha256(image).digest()
    decoded = model.encoded.image(digest) or model.decode(image, "image")
    model.check_cost(decoded.size, settings, classes=len(classes), refined=refined)
    return SegmentRequest(decoded, digest, tuple(classes), tuple(background), segmenter)


def _use_refiner(name: str | None, model: ServedModel) -> bool:
    if name is None:
        return model.refiner is not None
    if name.casefold() == "none":
        return False
    if model.refiner is None or name.casefold() != model.refiner.casefold():
        known = "none" if model.refiner is None else f"none or {model.refiner}"
        raise HTTPError(422, f"refiner: expected {known}, which is served here, got another; leave it out")
    return True


def _parse_background(
    names: str | list[str] | None, classes: Sequence[ClassPrompt], limits: Limits
) -> list[ClassPrompt]:
    words = [names] if isinstance(names, str) else list(names or ())
    plain = [word.strip().lower() for word in words]
    if plain == ["auto"]:
        return scene_background(classes)
    if plain in ([], ["none"]):
        return []
    if "auto" in plain or "none" in plain:
        raise ClassListError("background: expected auto or none alone, or names; got both")
    return _parse_names(words, "background name", limits)


def _parse_names(names: str | list[str], what: str, limits: Limits) -> list[ClassPrompt]:
    """Counted before they are parsed, because parsing creates an object for each."""
    texts = [names] if isinstance(names, str) else names
    count = sum(text.count(";") + 1 for text in texts)
    if count > 2 * limits.classes or sum(map(len, texts)) > _MAX_CHARACTERS:
        raise _too_many(what, limits)
    parsed = parse_classes(texts, what=what)
    if len(parsed) > limits.classes:
        raise _too_many(what, limits)
    return parsed


def _too_many(what: str, limits: Limits) -> ClassListError:
    return ClassListError(
        f"expected at most {limits.classes} {what} entries of {_MAX_CHARACTERS} characters in all, got more; "
        f"split the request"
    )


def _check_texts(
    classes: Sequence[ClassPrompt], background: Sequence[ClassPrompt], settings: Settings, limits: Limits
) -> None:
    prompts = {prompt for item in (*classes, *background) for prompt in item.prompts}
    if max(map(len, prompts)) > _MAX_PROMPT:
        raise ClassListError(f"expected texts of at most {_MAX_PROMPT} characters, got a longer one; shorten it")
    templates = len(load_templates(settings.templates))
    if len(prompts) * templates > limits.texts:
        raise ClassListError(
            f"expected at most {limits.texts} texts, got {len(prompts)} prompts in {templates} templates; use fewer "
            f"classes or fewer templates"
        )
