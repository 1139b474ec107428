"""The exceptions of this package, all below :class:`CliperError`, and helpers for their messages.

A message is one line: what was expected, what came, and what to do.
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
    "ImageSizeError",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "RefinerError",
    "ResourceError",
    "SettingsError",
    "ShapeError",
    "quote_path",
    "reraise",
    "short_reason",
]


class CliperError(Exception):
    """Base class of the errors that this package raises."""


class InputError(CliperError, ValueError):
    """An argument, image, class list or file that cannot be used."""


class ImageError(InputError):
    """An image that cannot be read, or whose size is out of bounds."""


class ImageSizeError(ImageError):
    """An image with more pixels than are decoded as a whole."""


class ClassListError(InputError):
    """A class list that is empty, names a class twice, or cannot be read."""


class SettingsError(InputError):
    """An unknown setting, a value out of range, or an unknown preset."""


class ShapeError(InputError):
    """Tensors whose shapes do not fit together."""


class CheckpointError(CliperError):
    """Weights that are missing, damaged, or of another kind than expected."""


class DownloadError(CheckpointError):
    """Weights that could not be downloaded."""


class RefinerError(CliperError):
    """An unknown refiner, one without the requested layer, or one whose results are not finite."""


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

    For an OSError it is the system's text without number and path, for an exception without text the name of its class.
    PyTorch refuses pickles that could run code, and advises to load them without that protection; the advice is
    replaced.

    Example:
        >>> short_reason(FileNotFoundError(2, "No such file or directory", "a.png"))
        'No such file or directory'
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, pickle.UnpicklingError):
            return (
                "the file holds more than tensors and could run code, or is damaged, so it is not loaded; "
                "get the weights as safetensors"
            )
        cause = cause.__cause__ or cause.__context__
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__


@contextlib.contextmanager
def reraise(
    caught: type[Exception] | tuple[type[Exception], ...], error: type[CliperError], message: str, advice: str = ""
) -> Iterator[None]:
    """Replace exceptions raised in the block by one of this package, with the text "message: reason; advice".

    Exceptions of this package pass unchanged.

    Args:
        caught: the exceptions to replace.
        error: class of the exception that is raised instead.
        message: what was expected, or what could not be done.
        advice: what to do; empty leaves it out.

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
