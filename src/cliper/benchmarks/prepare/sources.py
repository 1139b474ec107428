"""Reading what annotations come as: MATLAB files and large json files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import ImageError, InputError, MissingExtraError, ResourceError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["check_coco_api", "first_there", "read_json", "read_mat"]

_MAX_JSON_BYTES = 2_000_000_000  # three times the largest that is published, PASCAL-Context's


def first_there(what: str, given: Path | None, usual: Iterable[Path]) -> Path:
    """The path that was given, else the first of the usual ones that is there.

    Raises:
        InputError: it is not there, or none is.
    """
    from cliper.decoding import shown_path

    places = [given] if given is not None else list(usual)
    for path in places:
        if path.exists():
            return path
    listed = " or ".join(shown_path(path) for path in places)
    raise InputError(f"expected {what} at {listed}, got nothing there; name its place (docs/benchmarks.md)")


def read_json(what: str, path: Path) -> dict[str, Any]:
    """A json file that holds an object.

    Raises:
        InputError: it cannot be read, is no file, is too large, or holds something else.
        ResourceError: memory ran out.
    """
    from cliper.decoding import one_line, shown_path

    try:
        if not path.is_file():  # opening a pipe could wait for ever
            raise OSError("not a file")
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise OSError(f"more than {_MAX_JSON_BYTES:,} bytes")
        data = json.loads(path.read_bytes())
    except MemoryError:
        raise ResourceError(f"memory ran out while reading {shown_path(path)}; use a machine with more") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected {what} as json, could not read {shown_path(path)} ({one_line(error)}); fetch it again"
        ) from None
    if not isinstance(data, dict):
        raise InputError(f"expected {what}, got a json {type(data).__name__}: {shown_path(path)}; is it another file?")
    return data


def read_mat(path: Path, *keys: str) -> npt.NDArray[Any]:
    """An integer array [H, W] from a MATLAB file, found by its name, or the names of a structure and its field.

    Raises:
        ImageError: the file cannot be read, or holds no such array.
    """
    from scipy.io import loadmat

    from cliper.decoding import one_line, shown_path

    name = ".".join(keys)
    try:
        found: Any = loadmat(str(path), squeeze_me=True, struct_as_record=False)
    except Exception as error:  # its parser raises nearly everything on damaged data
        raise ImageError(
            f"expected a MATLAB file with {name}, could not read {shown_path(path)} ({one_line(error)}); fetch it again"
        ) from None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else getattr(found, key, None)
    if getattr(found, "ndim", 0) != 2 or found.dtype.kind not in "iu":
        raise ImageError(f"expected an integer array {name}, got none: {shown_path(path)}; is it another annotation?")
    array: npt.NDArray[Any] = found
    return array


def check_coco_api() -> None:
    """Ask for pycocotools before anything large is read.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise MissingExtraError("COCO's regions need pycocotools; pip install 'cliper[coco]'") from None
