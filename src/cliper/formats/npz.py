"""Labels, scores and confidence as a compressed numpy archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import ClassListError, InputError, quote_path, reraise
from cliper.files import atomic_write
from cliper.formats.base import LabeledImage, bounded_confidence

__all__ = ["SavedResult", "read_npz", "write_npz"]


@dataclass(frozen=True)
class SavedResult:
    """The content of an archive.

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


def write_npz(path: str | Path, result: LabeledImage | SavedResult) -> None:
    """Write an archive of ``labels``, ``scores``, ``classes`` and ``confidence`` for ``numpy.load``.

    Args:
        path: the file to write; no suffix is added.
        result: scores and confidence, at most 1, are stored as float32, labels with their dtype.

    Raises:
        ClassListError: a class name with a null character.
        OutputError: the file cannot be written.
    """
    if any("\0" in name for name in result.classes):  # numpy drops them at the end of a text
        raise ClassListError("expected class names without null characters, got one with; remove it")
    arrays: dict[str, Any] = {
        "labels": result.labels,
        "scores": np.asarray(result.scores, dtype=np.float32),
        "classes": np.array(list(result.classes), dtype=np.str_),
        "confidence": bounded_confidence(np.asarray(result.confidence, dtype=np.float32)),
    }
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def read_npz(path: str | Path) -> SavedResult:
    """Read the file of :func:`write_npz`. Archives with pickled objects, which could run code, are refused.

    Raises:
        InputError: no such file, damaged, another archive, or arrays whose shapes do not fit together.
    """
    name = quote_path(path)
    # zip, zlib and numpy raise many kinds of exceptions on damaged data.
    with (
        reraise(Exception, InputError, f"cannot read the result archive {name}", "check the path, or write it again"),
        Path(path).open("rb") as stream,
        np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive,
    ):
        labels, names = archive["labels"], archive["classes"]
        scores, confidence = archive["scores"].astype(np.float32), archive["confidence"].astype(np.float32)
    if (
        not np.issubdtype(labels.dtype, np.integer)
        or names.dtype.kind != "U"
        or labels.ndim != 2
        or names.ndim != 1
        or scores.shape != (len(names), *labels.shape)
        or confidence.shape != (len(names),)
    ):
        found = ", ".join(f"{array.dtype} {list(array.shape)}" for array in (labels, scores, names, confidence))
        raise InputError(
            f"{name}: expected integer labels [H, W], scores [C, H, W], C class names as text and confidence [C], "
            f"got {found}; write it again"
        )
    return SavedResult(labels, scores, tuple(str(name) for name in names), confidence)
