"""What a visitor filled in, checked: nothing of it is trusted, a program may have sent it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cliper.errors import ClassListError, ImageError, SettingsError
from cliper.images import resized_shape
from cliper.prompts import ClassPrompt, parse_classes
from cliper.settings import Settings
from cliper.web.page.limits import Limits

__all__ = [
    "AUTO",
    "LABELS",
    "NONE",
    "OWN",
    "check_labelling",
    "check_patches",
    "read_background",
    "read_classes",
    "read_settings",
    "read_thresholds",
    "size_range",
]

AUTO, NONE, OWN = "common scene words", "none", "my own"
"""What the background can be: the values of the page's choice, and its words."""

LABELS = {
    "recipe": "Recipe",
    "size": "Size",
    "window": "Window",
    "score_threshold": "Class threshold",
    "background_threshold": "Background threshold",
}
"""What the page calls a setting, by its name."""


@dataclass(frozen=True)
class _Kind:
    word: str
    words: str


_CLASS = _Kind("class", "classes")
_WORD = _Kind("background word", "background words")


def read_classes(chips: Any, limits: Limits) -> list[ClassPrompt]:
    """The classes that were typed.

    Args:
        chips: texts, one for each chip.
        limits: how many there may be, and how long.

    Raises:
        ClassListError: none, one given twice, too many, or one that is too long.
    """
    if not chips:
        raise ClassListError("expected at least one class, got none; type what to look for, such as dog")
    return _read(chips, _CLASS, limits)


def read_background(choice: Any, chips: Any, limits: Limits) -> str | list[ClassPrompt] | None:
    """The background as :class:`cliper.Segmenter` takes it.

    Args:
        choice: one of :data:`AUTO`, :data:`NONE`, :data:`OWN`.
        chips: the words, for :data:`OWN`.
        limits: how many there may be, and how long.

    Raises:
        ClassListError: another choice, no words of one's own, or words that cannot be used.
    """
    if choice == AUTO:
        return "auto"
    if choice == NONE:
        return None
    if choice != OWN:
        raise ClassListError(f"background: expected {AUTO}, {NONE} or {OWN}, got {str(choice)[:40]!r}")
    if not chips:
        raise ClassListError(f"expected background words, got none; type some, or choose {NONE}")
    return _read(chips, _WORD, limits)


def size_range(base: Settings, limits: Limits) -> tuple[int, int]:
    """Smallest and largest size that may be asked for: the page's, wider if the model's own is outside."""
    return min(limits.sizes[0], base.size), max(limits.sizes[1], base.size)


def read_settings(base: Settings, recipe: Any, size: Any, window: Any, limits: Limits) -> Settings:
    """``base`` with what the page lets a visitor change of it before a picture is computed.

    A DINO refiner, which has no limit of its own, gets that of the page where ``base`` sets none.

    Raises:
        SettingsError: a value of another kind, or out of the page's range.
    """
    least, largest = size_range(base, limits)
    settings = _changed(base, recipe=recipe, size=_whole(size), window=_whole(window))
    if not least <= settings.size <= largest:
        raise SettingsError(f"{LABELS['size']}: expected {least} to {largest} pixels, got {settings.size}")
    if settings.window and not limits.sizes[0] <= settings.window <= largest:
        raise SettingsError(
            f"{LABELS['window']}: expected 0, or {limits.sizes[0]} to {largest} pixels, got {settings.window}"
        )
    return settings.replace(refine_max_patches=base.refine_max_patches or limits.patches)


def read_thresholds(base: Settings, score: Any, background: Any) -> Settings:
    """``base`` with these thresholds.

    Raises:
        SettingsError: one that is no number from 0 to 1.
    """
    return _changed(base, score_threshold=score, background_threshold=background)


def check_patches(width: int, height: int, size: int, patch: int, limits: Limits) -> None:
    """Refuse a picture so long that, at this size, it would take too much memory and time.

    Raises:
        ImageError: more patches than the limit.
    """
    rows, columns = (side // patch for side in resized_shape(width, height, size, patch))
    if rows * columns > limits.patches:
        raise ImageError(
            f"expected at most {limits.patches} patches here, got {columns}x{rows} for a picture of "
            f"{width}x{height} pixels at size {size}; lower the size, or cut the picture"
        )


def check_labelling(width: int, height: int, classes: int, limits: Limits) -> None:
    """Refuse a picture so large that, with so many classes, giving each pixel its own would take long.

    Raises:
        ClassListError: more megapixels times classes than the limit.
    """
    megapixels = width * height / 1e6
    if megapixels * classes > limits.labelling:
        raise ClassListError(
            f"expected megapixels times classes to be at most {limits.labelling:g} here, got {megapixels:.4g} times "
            f"{classes}; make the picture smaller, or take out some classes"
        )


def _read(chips: Any, kind: _Kind, limits: Limits) -> list[ClassPrompt]:
    if not isinstance(chips, Sequence) or isinstance(chips, str) or not all(isinstance(c, str) for c in chips):
        raise ClassListError(f"expected {kind.words} as a list of texts, got something else")
    if len(chips) > limits.classes:
        raise ClassListError(f"expected at most {limits.classes} {kind.words} here, got {len(chips)}; take some out")
    if any(len(chip) > limits.letters for chip in chips):
        raise ClassListError(f"expected a {kind.word} of at most {limits.letters} letters, got a longer one")
    named = parse_classes(chips, what=kind.word)
    if len(named) > limits.classes:  # one chip may hold "a; b"
        raise ClassListError(f"expected at most {limits.classes} {kind.words} here, got {len(named)}; take some out")
    texts = sum(len(one.prompts) for one in named)
    if texts > limits.texts:
        raise ClassListError(f"expected at most {limits.texts} texts, synonyms counted, got {texts}; take some out")
    return named


def _changed(base: Settings, **values: Any) -> Settings:
    """``base`` with other values; what is wrong with one is said under its label."""
    for name, value in values.items():
        try:
            base = base.replace(**{name: value})
        except SettingsError as error:
            reason = str(error).removeprefix(f"settings: {name}: ")
            raise SettingsError(f"{LABELS[name]}: {reason}") from None
    return base


def _whole(value: Any) -> Any:
    """Browsers have no whole numbers: 336.0 is one. What is none is left for the settings to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
