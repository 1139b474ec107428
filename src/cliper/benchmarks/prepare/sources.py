"""Reading what annotations come as: MATLAB files and large json files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.errors import ImageError, InputError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["check_coco_api", "first_there", "paint_regions", "read_json", "read_mat"]


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


def check_coco_api() -> None:
    """Ask for pycocotools before anything large is read.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise MissingExtraError("COCO's regions need pycocotools; pip install 'cliper[coco]'") from None


def paint_regions(name: str, height: int, width: int, regions: Iterable[tuple[int, Any]]) -> npt.NDArray[np.uint16]:
    """Regions as COCO writes them (polygons, or run lengths plain or compressed), each with its number.

    They are painted in the order given, a later one over an earlier one; crowds are not told from objects.

    Args:
        name: of the picture, for messages.
        height: of the picture.
        width: of the picture.
        regions: (number, where) of each.

    Returns:
        [height, width], 0 where there is no region.

    Raises:
        ImageError: a region cannot be decoded, or is of another picture's size.
    """
    import numpy as np

    from cliper.decoding import one_line

    try:
        numbers = np.zeros((height, width), np.uint16)
        for number, where in regions:
            numbers[_decode(where, height, width) > 0] = number
    except Exception as error:  # whatever pycocotools makes of a damaged one
        raise ImageError(f"{name}: could not decode a region ({one_line(error)}); fetch the json again") from None
    return numbers


def _decode(where: Any, height: int, width: int) -> npt.NDArray[Any]:
    from pycocotools import mask

    if isinstance(where, list):
        encoded = mask.merge(mask.frPyObjects(where, height, width))
    elif isinstance(where["counts"], list):
        encoded = mask.frPyObjects(where, height, width)
    else:
        encoded = where
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is behind numpy's ways
        region: npt.NDArray[Any] = mask.decode(encoded)
    if region.shape != (height, width):
        raise ValueError(f"a region of {region.shape[1]}x{region.shape[0]} in a picture of {width}x{height}")
    return region
