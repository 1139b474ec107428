"""PASCAL-Context's 59 classes, from either form that its annotations are published in."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from cliper.benchmarks.base import read_split
from cliper.benchmarks.prepare.plan import Job, Plan, renumber
from cliper.benchmarks.prepare.regions import check_image_size, group_annotations, is_integer, rasterize
from cliper.benchmarks.prepare.sources import check_coco_api, first_there, read_json, read_mat
from cliper.errors import ImageError, InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cliper.benchmarks.prepare.regions import Annotation

__all__ = ["context_masks"]

# The 59 classes among the annotations' 459. Both are in alphabetical order, so that the i-th is label i + 1.
# fmt: off
_CLASSES = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on
_LABELS = dict.fromkeys(range(460), 0) | {number: i + 1 for i, number in enumerate(_CLASSES)}


def context_masks(root: Path, annotations: Path | None = None) -> Plan:
    """Plan ``VOCdevkit/VOC2010/SegmentationClassContext`` for the pictures of val.

    Args:
        root: the folder of all data sets.
        annotations: ``trainval_merged.json``, or the folder of the ``.mat`` files with 459 labels; by default
            ``trainval_merged.json`` or ``trainval`` in the folder ``VOC2010``. The json brings its own list of val,
            which is written too; the ``.mat`` files go by VOC's.

    Raises:
        InputError: the annotations are not there or are something else.
        MissingExtraError: they are json, and pycocotools is not installed.
    """
    folder = root / "VOCdevkit" / "VOC2010"
    usual = (folder / "trainval_merged.json", folder / "trainval")
    source = first_there("PASCAL-Context's annotations", annotations, usual)
    target = folder / "SegmentationClassContext"
    lists = folder / "ImageSets"
    if source.is_dir():
        names = read_split("context", [lists / "Main" / "val.txt"])
        return Plan(target, [Job(target / f"{n}.png", partial(_of_mat, source / f"{n}.mat")) for n in names])
    check_coco_api()
    return _of_json(source, folder)


def _of_mat(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        from cliper.decoding import shown_path

        raise ImageError(f"expected an annotation at {shown_path(path)}, got nothing there; fetch it again")
    return renumber(read_mat(path, "LabelMap"), _LABELS, path)


def _of_json(source: Path, folder: Path) -> Plan:
    """Plan the masks of the images of val."""
    from cliper.decoding import shown_path

    data = read_json("PASCAL-Context's annotations", source)
    name = shown_path(source)
    try:
        images, problems = _images(data["images"], name)
        grouped, unassigned = group_annotations(data["annos_segmentation"], "annos_segmentation", name, images)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"expected PASCAL-Context's trainval_merged.json, got another one ({error!r}): {name}"
        ) from None
    target = folder / "SegmentationClassContext"
    jobs = []
    for number, item in images.items():
        stem = Path(item["file_name"]).stem
        make = partial(_paint, f"{name}: image {stem}", item, grouped.get(number, ()), folder)
        jobs.append(Job(target / f"{stem}.png", make))
    stems = sorted(job.target.stem for job in jobs)
    split = (folder / "ImageSets" / "SegmentationContext" / "val.txt", tuple(stems))
    return Plan(target, jobs, split, [*problems, *unassigned])


def _images(items: Any, source: str) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """The entries of val's images by their id, and a line for each that cannot be used."""
    if not isinstance(items, list):
        raise TypeError("images is no list")
    images: dict[int, dict[str, Any]] = {}
    problems = []
    stems = set()
    for index, item in enumerate(items):
        entry = item if isinstance(item, dict) else {}
        if entry.get("phase") not in (None, "val"):
            continue
        file_name = entry.get("file_name")
        number = entry.get("image_id")
        if entry.get("phase") is None or not is_integer(number) or not _is_file_name(file_name):
            problems.append(
                f"{source}: images[{index}]: expected an image with phase, image_id and file_name, got "
                f"{reprlib.repr(item)}; fetch the file again"
            )
        elif number in images or Path(file_name).stem in stems:
            problems.append(f"{source}: images[{index}]: expected each image once, got {file_name} again; remove one")
        else:
            images[number] = entry
            stems.add(Path(file_name).stem)
    return images, problems


def _is_file_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(r"\w[\w.-]{0,99}", value, re.ASCII) is not None


def _paint(title: str, image: dict[str, Any], annotations: Sequence[Annotation], folder: Path) -> npt.NDArray[np.uint8]:
    height, width = image.get("height"), image.get("width")
    check_image_size(title, height, width, folder / "JPEGImages" / image["file_name"])
    return rasterize(title, height, width, annotations, _LABELS)
