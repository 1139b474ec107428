"""VOC's augmented masks, made with those of SBD, and PASCAL-Context's masks, made from either published form."""

from __future__ import annotations

import re
import reprlib
from functools import partial
from pathlib import Path
from typing import Any

from cliper.datasets.benchmark import match_files, read_split
from cliper.datasets.prepare.annotations import plan_annotated_masks
from cliper.datasets.prepare.masks import MaskJob, MaskPlan, remap_labels
from cliper.datasets.prepare.rasterize import is_integer
from cliper.datasets.prepare.readers import first_existing, read_json_object, read_mat, require_pycocotools
from cliper.errors import InputError

__all__ = ["context_masks", "voc_aug_masks"]

_SBD_LABELS = {value: value for value in range(21)}
_VOC_LABELS = _SBD_LABELS | {255: 255}
# The 59 classes among PASCAL-Context's 459. Both are in alphabetical order: the i-th has label i + 1.
# fmt: off
_CONTEXT_CLASSES = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)
# fmt: on
_CONTEXT_LABELS = dict.fromkeys(range(460), 0) | {number: label for label, number in enumerate(_CONTEXT_CLASSES, 1)}
_FILE_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


def voc_aug_masks(root: Path, sbd: Path | None = None) -> MaskPlan:
    """Plan ``VOCdevkit/VOC2012/SegmentationClassAug``: VOC's own masks, and SBD's for the images without one.

    Args:
        root: root folder of all data sets.
        sbd: folder of SBD, the one that contains ``dataset/cls`` or ``cls``. The masks of val do not need it: None
            plans VOC's own masks only.

    Raises:
        InputError: VOC's ``SegmentationClass``, or SBD's folder, is missing.
    """
    folder = root / "VOCdevkit" / "VOC2012"
    target = folder / "SegmentationClassAug"
    masks = {path.stem: path for path in match_files("VOC", folder / "SegmentationClass", "*.png")}
    jobs = [MaskJob(target / f"{name}.png", partial(remap_labels, _VOC_LABELS, path)) for name, path in masks.items()]
    if sbd is not None:
        read = partial(read_mat, keys=("GTcls", "Segmentation"))
        candidates = (sbd / "benchmark_RELEASE" / "dataset" / "cls", sbd / "dataset" / "cls", sbd / "cls")
        for path in match_files("VOC", first_existing("SBD's class masks", None, candidates), "*.mat"):
            if path.stem not in masks:
                jobs.append(MaskJob(target / f"{path.stem}.png", partial(remap_labels, _SBD_LABELS, path, read)))
    return MaskPlan(target, jobs)


def context_masks(root: Path, annotations: Path | None = None) -> MaskPlan:
    """Plan ``VOCdevkit/VOC2010/SegmentationClassContext`` for the images of val.

    Args:
        root: root folder of all data sets.
        annotations: ``trainval_merged.json``, or the folder of the ``.mat`` files with 459 labels; by default
            ``trainval_merged.json`` or ``trainval`` in the folder ``VOC2010``. The JSON has its own list of val,
            which is written too; the ``.mat`` files use VOC's list.

    Raises:
        InputError: the annotations are missing or cannot be used.
        MissingExtraError: they are JSON, and pycocotools is not installed.
    """
    folder = root / "VOCdevkit" / "VOC2010"
    defaults = (folder / "trainval_merged.json", folder / "trainval")
    source = first_existing("PASCAL-Context's annotations", annotations, defaults)
    target = folder / "SegmentationClassContext"
    lists = folder / "ImageSets"
    if source.is_dir():
        names = read_split("context", [lists / "Main" / "val.txt"])
        sources = {target / f"{name}.png": source / f"{name}.mat" for name in names}
        read = partial(read_mat, keys=("LabelMap",))
        jobs = [MaskJob(mask, partial(remap_labels, _CONTEXT_LABELS, path, read)) for mask, path in sources.items()]
        return MaskPlan(target, jobs)
    require_pycocotools()
    return plan_annotated_masks(
        read_json_object("PASCAL-Context's annotations", source),
        source,
        _identify,
        key="annos_segmentation",
        labels=_CONTEXT_LABELS,
        folder=target,
        image_path=lambda name: folder / "JPEGImages" / f"{name}.jpg",
        split=lists / "SegmentationContext" / "val.txt",
    )


def _identify(item: dict[str, Any]) -> tuple[int, str] | None:
    phase, number, file_name = (item.get(key) for key in ("phase", "image_id", "file_name"))
    if phase not in (None, "val"):
        return None
    if phase is None or not is_integer(number) or not isinstance(file_name, str) or not _FILE_NAME.fullmatch(file_name):
        raise InputError(f"expected an image with phase, image_id and file_name, got {reprlib.repr(item)}")
    return number, Path(file_name).stem
