"""What can go wrong, as one tree. Every message says what was expected, what came, and what to do.

CliperError
├── InputError (ValueError)      what the caller gave cannot be used
│   ├── ImageError               a picture that cannot be read or is out of bounds
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
]


class CliperError(Exception):
    """Base of every error that this package raises on purpose. The message is one line for a person."""


class InputError(CliperError, ValueError):
    """What the caller gave cannot be used."""


class ImageError(InputError):
    """A picture that cannot be read, or whose size is out of bounds."""


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
