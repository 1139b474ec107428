"""Files that a visitor downloads, made when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cliper.errors import InputError
from cliper.files import atomic_write
from cliper.result import Segmentation

__all__ = ["FILES", "make_file"]

FILES = {"labels": "labels.png", "overlay": "overlay.png", "coco": "coco.json"}
"""What can be asked for, and what the file is called."""


def make_file(result: Segmentation, what: Any, folder: Path, *, opacity: Any = 0.55, off: Any = ()) -> Path:
    """Write one of :data:`FILES`; there is one of each in a folder, the last.

    Args:
        result: at the thresholds that are set.
        what: which of :data:`FILES`.
        folder: where to.
        opacity: of the overlay's colours, 0 to 1.
        off: numbers of the classes, from 0, that are switched off in the overlay. The other files have all.

    Raises:
        InputError: no such file, or an opacity that is none.
        OutputError: it could not be written.
    """
    if not isinstance(what, str) or what not in FILES:
        raise InputError(f"download: expected one of {', '.join(FILES)}, got {str(what)[:40]!r}")
    path = folder / FILES[what]
    if what == "labels":
        result.save(path)
    elif what == "overlay":
        if isinstance(opacity, bool) or not isinstance(opacity, int | float) or not 0 <= opacity <= 1:
            raise InputError(f"opacity: expected a number from 0 to 1, got {str(opacity)[:40]!r}")
        _without(result, off).save_overlay(path, opacity=float(opacity))
    else:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(result.to_coco(file_name="picture")), encoding="utf-8")
    return path


def _without(result: Segmentation, off: Any) -> Segmentation:
    if not isinstance(off, Sequence) or not all(isinstance(i, int) and 0 <= i < len(result.classes) for i in off):
        raise InputError("off: expected numbers of classes, got something else")
    hidden = [index + 1 for index in off]
    return replace(result, labels=np.where(np.isin(result.labels, hidden), 0, result.labels).astype(np.int32))
