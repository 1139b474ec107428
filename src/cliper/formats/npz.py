"""A whole result as a compressed numpy archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import ClassListError, InputError, ShapeError, quote_path, short_reason
from cliper.files import atomic_write
from cliper.formats.label_png import check_labels

__all__ = ["SavedResult", "read_npz", "write_npz"]


@dataclass(frozen=True)
class SavedResult:
    """What an archive holds.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        scores: [C, H, W] float32.
        classes: C names.
        confidence: [C] float32.
    """

    labels: npt.NDArray[Any]
    scores: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    confidence: npt.NDArray[np.float32]


def write_npz(
    path: str | Path,
    *,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: Sequence[str],
    confidence: npt.ArrayLike,
) -> None:
    """Write a result as an archive of ``labels``, ``scores``, ``classes``, ``confidence`` for ``numpy.load``.

    Args:
        path: where to; no suffix is added.
        labels: [H, W] integers; their dtype is kept.
        scores: [C, H, W]; stored as float32.
        classes: C names.
        confidence: [C]; stored as float32.

    Raises:
        ShapeError: the shapes do not fit together.
        InputError: labels that are not integers from 0 to 65535, or a name with a null character.
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.npz"
        ...     write_npz(file, labels=[[0, 1]], scores=[[[0.2, 0.9]]], classes=["dog"], confidence=[1.0])
        ...     read_npz(file).classes
        ('dog',)
    """
    label_map = check_labels(labels)
    maps = np.asarray(scores, dtype=np.float32)
    shares = np.asarray(confidence, dtype=np.float32)
    names = np.array(list(classes), dtype=np.str_)
    _check_shapes(label_map, maps, names, shares, "to write")
    if any("\0" in name for name in classes):  # numpy drops them at the end of a text
        raise ClassListError("expected class names without null characters, got one with; remove it")
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, labels=label_map, scores=maps, classes=names, confidence=shares)


def read_npz(path: str | Path) -> SavedResult:
    """Read what :func:`write_npz` wrote. Archives with Python objects, which could run code, are refused.

    Raises:
        InputError: no such file, damaged, or another archive.
        ShapeError: the arrays' shapes do not fit together.
    """
    shown = quote_path(path)
    try:
        with Path(path).open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
            labels = check_labels(archive["labels"])
            scores = np.asarray(archive["scores"], dtype=np.float32)
            names = np.asarray(archive["classes"])
            confidence = np.asarray(archive["confidence"], dtype=np.float32)
    except FileNotFoundError:
        raise InputError(f"expected a result archive at {shown}, got nothing there; check the path") from None
    except InputError as error:
        raise type(error)(f"{shown}: {error}") from None
    except Exception as error:  # zip, zlib and numpy raise a dozen kinds on damaged data
        raise InputError(
            f"expected a result archive (.npz), got something else or a damaged one: {shown} "
            f"({short_reason(error)}); write it again"
        ) from None
    if names.dtype.kind != "U":
        raise InputError(f"{shown}: expected class names as text, got {names.dtype}; write it again")
    _check_shapes(labels, scores, names, confidence, shown)
    return SavedResult(labels, scores, tuple(str(name) for name in names), confidence)


def _check_shapes(
    labels: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    names: npt.NDArray[Any],
    confidence: npt.NDArray[Any],
    origin: str,
) -> None:
    count = len(names) if names.ndim == 1 else -1
    if scores.shape != (count, *labels.shape) or confidence.shape != (count,):
        raise ShapeError(
            f"{origin}: expected labels [H, W], scores [C, H, W], C classes and confidence [C], got "
            f"{list(labels.shape)}, {list(scores.shape)}, {list(names.shape)} and {list(confidence.shape)}"
        )
