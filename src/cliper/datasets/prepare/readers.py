"""Readers of annotation files: MATLAB and JSON."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cliper.errors import ImageError, InputError, MissingExtraError, ResourceError, quote_path, reraise

__all__ = ["first_existing", "get_list", "read_json_object", "read_mat", "require_pycocotools"]

_MAX_JSON_BYTES = 2_000_000_000  # three times the largest published file, PASCAL-Context's


def first_existing(title: str, given: Path | None, defaults: Iterable[Path]) -> Path:
    """The given path, or else the first default path that exists.

    Raises:
        InputError: the path does not exist, or no default does.
    """
    candidates = [given] if given is not None else list(defaults)
    for path in candidates:
        if path.exists():
            return path
    paths = " or ".join(map(quote_path, candidates))
    raise InputError(f"expected {title} at {paths}, got nothing there; give the path (see docs/datasets.md)")


def read_json_object(title: str, path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: the file cannot be read, is not a regular file, is too large, or does not hold an object.
        ResourceError: out of memory.
    """
    name = quote_path(path)
    with (
        reraise(MemoryError, ResourceError, f"cannot read {name}", "use a machine with more memory"),
        reraise((OSError, ValueError, RecursionError), InputError, f"cannot read {title} {name}", "download it again"),
    ):
        if not path.is_file():  # opening a pipe could block
            raise OSError("not a regular file")
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise OSError(f"more than {_MAX_JSON_BYTES:,} bytes")
        data = json.loads(path.read_bytes())
    if not isinstance(data, dict):
        raise InputError(f"expected {title}, got a JSON {type(data).__name__}: {name}; check the file")
    return data


def get_list(data: dict[str, Any], key: str, path: Path) -> list[Any]:
    """The list under a key of a JSON object.

    Raises:
        InputError: it is missing, or is not a list.
    """
    items = data.get(key)
    if not isinstance(items, list):
        raise InputError(f"expected a list {key!r}, got {reprlib.repr(items)}: {quote_path(path)}; check the file")
    return items


def read_mat(path: Path, keys: Sequence[str]) -> npt.NDArray[Any]:
    """An integer array [H, W] from a MATLAB file, given its name, or the names of a structure and its
    field.

    Raises:
        ImageError: the file cannot be read, or has no such array.
    """
    from scipy.io import loadmat

    name = ".".join(keys)
    # The parser raises almost any exception on damaged data.
    with reraise(Exception, ImageError, f"cannot read {name} of {quote_path(path)} (MATLAB)", "download it again"):
        value: Any = loadmat(str(path), squeeze_me=True, struct_as_record=False)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
    if getattr(value, "ndim", 0) != 2 or value.dtype.kind not in "iu":
        raise ImageError(f"expected an integer array {name} [H, W], got none: {quote_path(path)}; check the file")
    array: npt.NDArray[Any] = value
    return array


def require_pycocotools() -> None:
    """Check that pycocotools is installed, before a large file is read.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise MissingExtraError("COCO's annotations need pycocotools; run pip install 'cliper[coco]'") from None
