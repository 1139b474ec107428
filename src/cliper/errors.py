"""The exceptions of this package, as one tree. Every message says what was expected, what came, and what to do.

CliperError
├── InputError (ValueError)      what the caller gave cannot be used
│   ├── ImageError               an image that cannot be read or is out of bounds
│   ├── ClassListError           no classes, a class twice, a class no text encoder can read
│   ├── SettingsError            an unknown or impossible setting, a preset that does not exist
│   └── ShapeError               tensors whose shapes do not fit together
├── CheckpointError              weights that are missing, broken or of another kind
│   └── DownloadError            weights that could not be fetched
├── RefinerError                 a refiner that does not exist, or does not have what is asked of it
├── OutputError                  a result that could not be written
├── ResourceError                memory ran out
└── MissingExtraError            an optional dependency is not installed
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from os import PathLike

__all__ = [
    "CheckpointError",
    "ClassListError",
    "CliperError",
    "DownloadError",
    "ImageError",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "RefinerError",
    "ResourceError",
    "SettingsError",
    "ShapeError",
    "loading_reason",
    "quote_path",
    "reraise",
    "short_reason",
]


class CliperError(Exception):
    """Base of every error that this package raises on purpose. The message is one line for a person."""


class InputError(CliperError, ValueError):
    """What the caller gave cannot be used."""


class ImageError(InputError):
    """An image that cannot be read, or whose size is out of bounds."""


class ClassListError(InputError):
    """A class list that is empty, repeats itself, or cannot be read."""


class SettingsError(InputError):
    """An unknown or impossible setting, or a preset that does not exist."""


class ShapeError(InputError):
    """Tensors whose shapes do not fit together."""


class CheckpointError(CliperError):
    """Weights that are missing, broken, or of another kind than expected."""


class DownloadError(CheckpointError):
    """Weights that could not be fetched."""


class RefinerError(CliperError):
    """A refiner that does not exist, or does not have the layer that is asked of it."""


class OutputError(CliperError):
    """A result that could not be written."""


class ResourceError(CliperError):
    """Memory ran out."""


class MissingExtraError(CliperError, ImportError):
    """An optional dependency is not installed."""


def quote_path(path: str | PathLike[str]) -> str:
    """A path for an error message: quoted, escaped, on one line, at most 300 characters.

    Example:
        >>> quote_path("two\\nlines.png")
        "'two\\\\nlines.png'"
    """
    text = repr(str(path))
    return text if len(text) <= 300 else f"{text[:297]}...'"


def short_reason(error: BaseException) -> str:
    """The text of an exception for an error message: one line of at most 200 characters.

    Of an OSError it is the system's text without number and path; without any text it is the name of the class.

    Example:
        >>> short_reason(FileNotFoundError(2, "No such file or directory", "a.png"))
        'No such file or directory'
    """
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__


@contextlib.contextmanager
def reraise(
    caught: type[Exception] | tuple[type[Exception], ...], error: type[CliperError], message: str, advice: str = ""
) -> Iterator[None]:
    """Replace exceptions of the block by one of this package: "message: reason; advice".

    Exceptions of this package pass unchanged.

    Args:
        caught: the exceptions to replace.
        error: class of the exception that is raised instead.
        message: what was expected, or what could not be done.
        advice: what to do about it; empty leaves it out.

    Example:
        >>> with reraise(ValueError, SettingsError, "cannot read the size", "give a number"):
        ...     float("large")
        Traceback (most recent call last):
        cliper.errors.SettingsError: cannot read the size: could not convert string to float: 'large'; give a number
    """
    try:
        yield
    except CliperError:
        raise
    except caught as cause:
        ending = f"; {advice}" if advice else ""
        raise error(f"{message}: {short_reason(cause)}{ending}") from None


def loading_reason(error: BaseException) -> str:
    """Why a file of weights could not be loaded, on one line.

    PyTorch refuses pickles that could run code, and advises to load them without that protection. The advice is
    left out.
    """
    item: BaseException | None = error
    while item is not None:
        if isinstance(item, pickle.UnpicklingError):
            return (
                "the file holds more than tensors and could run code, or is damaged, so it is not loaded; "
                "get the weights as safetensors"
            )
        item = item.__cause__ or item.__context__
    return short_reason(error)
