"""One picture with what is asked of it, ready for the model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cliper.errors import ClassListError, ImageError
from cliper.images import load_stream
from cliper.prompts import ClassPrompt, load_templates, parse_classes, scene_background
from cliper.settings import Settings
from cliper.web.service.limits import Limits
from cliper.web.service.refusal import Refusal
from cliper.web.service.schema import Wishes
from cliper.web.service.served import Served

if TYPE_CHECKING:
    from PIL import Image

    from cliper.segmenter import Segmenter

__all__ = ["Wish", "make_wish"]

_MOST_CHARACTERS, _LONGEST_PROMPT = 100_000, 500


@dataclass(frozen=True, eq=False)
class Wish:
    """What the model is to do.

    Args:
        picture: decoded, RGB, upright.
        classes: at least one.
        background: names of what is not asked for, or none.
        segmenter: the served model with the settings that are asked for.
    """

    picture: Image.Image
    classes: tuple[ClassPrompt, ...]
    background: tuple[ClassPrompt, ...]
    segmenter: Segmenter

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for wishes that the model can do together."""
        segmenter = self.segmenter
        return (self.picture.size, self.classes, self.background, segmenter.settings, segmenter.refiner is None)


def make_wish(served: Served, image: bytes, wishes: Wishes) -> Wish:
    """Check what is asked against what is served, then decode the picture. Takes a while: not for an event loop.

    Raises:
        Refusal: 404 another model, 422 what is beyond the limits.
        InputError: a picture, class or setting that cannot be used.
        ResourceError: memory ran out while the picture was decoded.
    """
    limits = served.limits
    if wishes.model is not None and wishes.model.casefold() != served.name.casefold():
        raise Refusal(404, f"model: expected {served.name}, which is served here, got another; leave it out")
    refined = _refined(wishes.refiner, served)
    changes = wishes.settings.model_dump(exclude_none=True)
    settings = served.settings.replace(**changes)
    segmenter = served.variant(settings, refined=refined)
    classes = _names(wishes.classes, "class", limits)
    background = _background(wishes.background, classes, limits)
    _check_texts(classes, background, settings, limits)
    if not image:
        raise ImageError("image: expected a picture, got 0 bytes; send its file")
    picture = load_stream(io.BytesIO(image), "image", max_pixels=limits.pixels)
    served.check_work(picture.size, settings, classes=len(classes), refined=refined)
    return Wish(picture, tuple(classes), tuple(background), segmenter)


def _refined(asked: str | None, served: Served) -> bool:
    if asked is None:
        return served.refiner is not None
    if asked.casefold() == "none":
        return False
    if served.refiner is None or asked.casefold() != served.refiner.casefold():
        there = "none" if served.refiner is None else f"none or {served.refiner}"
        raise Refusal(422, f"refiner: expected {there}, which is served here, got another; leave it out")
    return True


def _background(asked: str | list[str] | None, classes: Sequence[ClassPrompt], limits: Limits) -> list[ClassPrompt]:
    words = [asked] if isinstance(asked, str) else list(asked or ())
    plain = [word.strip().lower() for word in words]
    if plain == ["auto"]:
        return scene_background(classes)
    if plain in ([], ["none"]):
        return []
    if "auto" in plain or "none" in plain:
        raise ClassListError("background: expected auto or none alone, or names; got both")
    return _names(words, "background name", limits)


def _names(asked: str | list[str], what: str, limits: Limits) -> list[ClassPrompt]:
    """Counted before they are parsed, which makes an object of each."""
    texts = [asked] if isinstance(asked, str) else asked
    count = sum(text.count(";") + 1 for text in texts)
    if count > 2 * limits.classes or sum(map(len, texts)) > _MOST_CHARACTERS:
        raise _too_many(what, limits)
    names = parse_classes(texts, what=what)
    if len(names) > limits.classes:
        raise _too_many(what, limits)
    return names


def _too_many(what: str, limits: Limits) -> ClassListError:
    return ClassListError(
        f"expected at most {limits.classes} {what} entries of {_MOST_CHARACTERS} characters in all, got more; "
        f"ask for them in parts"
    )


def _check_texts(
    classes: Sequence[ClassPrompt], background: Sequence[ClassPrompt], settings: Settings, limits: Limits
) -> None:
    prompts = {prompt for item in (*classes, *background) for prompt in item.prompts}
    if max(map(len, prompts)) > _LONGEST_PROMPT:
        raise ClassListError(f"expected texts of at most {_LONGEST_PROMPT} characters, got a longer one; shorten it")
    forms = len(load_templates(settings.templates))
    if len(prompts) * forms > limits.texts:
        raise ClassListError(
            f"expected at most {limits.texts} texts, got {len(prompts)} prompts in {forms} templates; ask for fewer "
            f"classes or use fewer templates"
        )
