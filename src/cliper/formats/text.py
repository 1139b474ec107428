"""JSON and other text in files: small ones at once, those of a whole run piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from cliper.decoding import one_line, shown_path
from cliper.errors import InputError
from cliper.formats.atomic import atomic_path

__all__ = ["as_json", "portable", "read_json", "without_folders", "write_items", "write_json", "write_text"]


def as_json(value: Any) -> str:
    """JSON on one line, in ASCII: whatever a file's name holds, it can be written.

    Example:
        >>> as_json({"name": "Bär"})
        '{"name":"B\\\\u00e4r"}'
    """
    return json.dumps(value, separators=(",", ":"))


def portable(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of a file's name that are no text become question marks.

    Example:
        >>> portable("a\\udcff.png")
        'a?.png'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def without_folders(name: str) -> str:
    """A model's name without the folders of this machine; aliases and hub names stay as they are.

    Example:
        >>> [without_folders(name) for name in ("ViT-B/16", "/home/me/models/mine", "./mine")]
        ['ViT-B/16', 'mine', 'mine']
    """
    path = Path(name)
    return path.resolve().name if path.is_absolute() or name.startswith((".", "~")) else name


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 with plain line ends on every system.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write one value.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, as_json(value) + "\n")


def write_items(stream: IO[str], items: Iterable[Any]) -> None:
    """Write a JSON list, one item a line; the items are never held together."""
    stream.write("[")
    for number, item in enumerate(items):
        stream.write(("," if number else "") + "\n" + as_json(item))
    stream.write("\n]")


def read_json(path: Path, kind: type) -> Any:
    """Read one picture's file of a run.

    Args:
        path: of the file.
        kind: what its outermost value must be, ``dict`` or ``list``.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"expected a picture's result at {shown_path(path)}, got nothing there; run the picture again"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected a picture's result, could not read {shown_path(path)} ({one_line(error)}); run the picture again"
        ) from None
    if not isinstance(value, kind):
        raise InputError(f"expected a JSON {kind.__name__} in {shown_path(path)}, got another; run the picture again")
    return value
