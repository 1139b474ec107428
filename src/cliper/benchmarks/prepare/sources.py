"""Reading what annotations come as: MATLAB files and large json files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import ImageError, InputError, MissingExtraError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["decode_region", "first_there", "read_json", "read_mat"]


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
        InputError: it cannot be read, or holds something else.
    """
    from cliper.decoding import one_line, shown_path

    try:
        data = json.loads(path.read_bytes())
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


def decode_region(segmentation: Any, height: int, width: int) -> npt.NDArray[Any]:
    """A region as COCO writes them (polygons, or run lengths plain or compressed), as [H, W] of 0 and 1.

    Raises:
        ValueError, TypeError, or whatever pycocotools makes of a damaged one.
        MissingExtraError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise MissingExtraError("COCO's regions need pycocotools; pip install 'cliper[coco]'") from None
    if isinstance(segmentation, list):
        encoded = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = mask.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    region: npt.NDArray[Any] = mask.decode(encoded)
    if region.shape != (height, width):
        raise ValueError(f"a region of {region.shape[1]}x{region.shape[0]} in a picture of {width}x{height}")
    return region
