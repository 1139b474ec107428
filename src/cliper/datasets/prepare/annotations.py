"""Masks from JSON annotation files in COCO's layout. The files are untrusted: each entry is checked."""

from __future__ import annotations

import contextlib
import reprlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.JpegImagePlugin import JpegImageFile

from cliper.datasets.prepare.masks import MaskJob, MaskPlan
from cliper.datasets.prepare.rasterize import REPAIR_HINT, Annotation, is_integer, rasterize
from cliper.datasets.prepare.readers import get_list
from cliper.errors import ImageError, InputError, quote_path
from cliper.images.limits import LimitExceededError, check_limits

__all__ = ["plan_annotated_masks"]


def plan_annotated_masks(
    data: dict[str, Any],
    source: Path,
    identify: Callable[[dict[str, Any]], tuple[int, str] | None],
    *,
    key: str,
    labels: Mapping[int, int],
    folder: Path,
    image_path: Callable[[str], Path],
    split: Path | None,
) -> MaskPlan:
    """Plan one mask for each image of an annotation file.

    Args:
        data: content of the file.
        source: path of the file.
        identify: from an entry of ``"images"`` to its id and the name of its sample, or None to skip the image.
            Raises InputError if the entry has neither.
        key: key of the list of annotations, ``"annotations"``.
        labels: category id -> label.
        folder: folder of the masks.
        image_path: from the name of a sample to its image file.
        split: where to write the list of samples, if anywhere.

    Raises:
        InputError: the images or the annotations are not lists.
    """
    images, problems = _index_images(get_list(data, "images", source), source, identify)
    annotations, unassigned = _group_annotations(get_list(data, key, source), key, source, images)
    jobs = []
    for number, (name, item) in images.items():
        title = f"{quote_path(source)}: image {name}"
        make = partial(_make_labels, title, item, annotations.get(number, ()), labels, image_path(name))
        jobs.append(MaskJob(folder / f"{name}.png", make))
    names = sorted(name for name, _ in images.values())
    return MaskPlan(folder, jobs, None if split is None else (split, names), problems + unassigned)


def _index_images(
    items: list[Any], source: Path, identify: Callable[[dict[str, Any]], tuple[int, str] | None]
) -> tuple[dict[int, tuple[str, dict[str, Any]]], list[str]]:
    """Id -> (name, entry) of each image, and one line for each entry that cannot be used."""
    images: dict[int, tuple[str, dict[str, Any]]] = {}
    problems = []
    names = set()
    for index, item in enumerate(items):
        try:
            identity = identify(item if isinstance(item, dict) else {})
            if identity is None:
                continue
            number, name = identity
            if number in images or name in names:
                raise InputError(f"expected each image once, got {name} again")
        except InputError as error:
            problems.append(f"{quote_path(source)}: images[{index}]: {error}{REPAIR_HINT}")
            continue
        images[number] = (name, item)
        names.add(name)
    return images, problems


def _group_annotations(
    items: list[Any], key: str, source: Path, images: Mapping[int, Any]
) -> tuple[Mapping[int, Sequence[Annotation]], list[str]]:
    """Annotations of each image of ``images`` in the order of the file, and one line for each without an image id."""
    groups: dict[int, list[Annotation]] = defaultdict(list)
    problems = []
    for index, item in enumerate(items):
        entry = item if isinstance(item, dict) else {}
        number, image = entry.get("id"), entry.get("image_id")
        name = f"annotation {number}" if is_integer(number) else f"{key}[{index}]"
        if not is_integer(image):
            problems.append(
                f"{quote_path(source)}: {name}: expected an annotation with an integer image_id, got "
                f"{reprlib.repr(item)}{REPAIR_HINT}"
            )
        elif image in images:
            groups[image].append((name, entry))
    return groups, problems


def _make_labels(
    title: str, item: dict[str, Any], annotations: Sequence[Annotation], labels: Mapping[int, int], image: Path
) -> npt.NDArray[np.uint8]:
    height, width = item.get("height"), item.get("width")
    size = _jpeg_size(title, image) or (width, height)
    if size != (width, height):
        raise ImageError(
            f"{title}: expected the size {size[0]}x{size[1]} of {quote_path(image)}, got "
            f"{reprlib.repr(width)}x{reprlib.repr(height)}{REPAIR_HINT}"
        )
    return rasterize(title, height, width, annotations, labels)


def _jpeg_size(title: str, path: Path) -> tuple[int, int] | None:
    """(width, height) by an image's header; None if it is missing or damaged, which `cliper data verify` reports.

    Raises:
        ImageError: the file exceeds a limit; Pillow reads EXIF with the header.
    """
    if path.is_file():  # opening a pipe could block
        with contextlib.suppress(OSError), path.open("rb") as stream:
            try:
                check_limits(stream, "JPEG", lambda _: None)
            except LimitExceededError as error:
                raise ImageError(f"{title}: {quote_path(path)}: {error}; download the image again") from None
            with contextlib.suppress(SyntaxError, ValueError):
                return JpegImageFile(stream).size
    return None
