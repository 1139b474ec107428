"""CLIPer: open-vocabulary semantic segmentation without training.

Give an image and class names, get a label map.

>>> import cliper
>>> segmenter = cliper.Segmenter.from_pretrained()
>>> result = segmenter(cliper.example_photo(), ["horse"])
>>> result.classes
('horse',)

Importing the package is fast: torch and transformers are imported when a segmenter is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliper import errors, evaluation, formats, ops
    from cliper.encoded_image import EncodedImage
    from cliper.errors import CliperError
    from cliper.examples import example_photo
    from cliper.prompts import ClassPrompt
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter
    from cliper.settings import Preset, Settings, load_preset, presets

__version__ = "0.1.0"

_LAZY_ATTRIBUTES = {
    "ClassPrompt": "cliper.prompts",
    "CliperError": "cliper.errors",
    "EncodedImage": "cliper.encoded_image",
    "Preset": "cliper.settings",
    "Segmentation": "cliper.result",
    "Segmenter": "cliper.segmenter",
    "Settings": "cliper.settings",
    "example_photo": "cliper.examples",
    "load_preset": "cliper.settings",
    "presets": "cliper.settings",
}
_LAZY_MODULES = ("errors", "evaluation", "formats", "ops")

__all__ = [
    "ClassPrompt",
    "CliperError",
    "EncodedImage",
    "Preset",
    "Segmentation",
    "Segmenter",
    "Settings",
    "errors",
    "evaluation",
    "example_photo",
    "formats",
    "load_preset",
    "ops",
    "presets",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY_ATTRIBUTES:
        return getattr(import_module(_LAZY_ATTRIBUTES[name]), name)
    if name in _LAZY_MODULES:
        return import_module(f"cliper.{name}")
    raise AttributeError(f"module 'cliper' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
