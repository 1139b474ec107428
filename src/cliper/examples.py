"""The photo that comes with the package."""

from importlib import resources
from pathlib import Path

__all__ = ["EXAMPLE_CLASSES", "example_photo"]

EXAMPLE_CLASSES = "horse"


def example_photo() -> Path:
    """Path of the bundled photo (``assets/horses.md`` names its author and licence)."""
    return Path(str(resources.files("cliper") / "assets" / "horses.jpg"))
