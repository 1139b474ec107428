"""PASCAL-Context's 59 classes, from either form that its annotations are published in."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks.base import read_split
from cliper.benchmarks.prepare.plan import Job, Plan, renumber
from cliper.benchmarks.prepare.sources import check_coco_api, first_there, paint_regions, read_json, read_mat
from cliper.errors import ImageError, InputError

if TYPE_CHECKING:
    import numpy.typing as npt

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
    pictures = _of_json(source)
    jobs = [Job(target / f"{name}.png", partial(_of_regions, name, *rest)) for name, rest in pictures.items()]
    return Plan(target, jobs, (lists / "SegmentationContext" / "val.txt", tuple(sorted(pictures))))


def _of_mat(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        from cliper.decoding import shown_path

        raise ImageError(f"expected an annotation at {shown_path(path)}, got nothing there; fetch it again")
    return renumber(read_mat(path, "LabelMap"), _LABELS, path)


def _of_json(source: Path) -> dict[str, tuple[int, int, list[tuple[int, Any]]]]:
    """Name -> (height, width, regions), a region being (number of its class, where it is); val only."""
    from cliper.decoding import shown_path

    data = read_json("PASCAL-Context's annotations", source)
    regions = defaultdict(list)
    try:
        for item in data["annos_segmentation"]:
            regions[item["image_id"]].append((item["category_id"], item["segmentation"]))
        return {
            Path(item["file_name"]).stem: (item["height"], item["width"], regions[item["image_id"]])
            for item in data["images"]
            if item["phase"] == "val"
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected PASCAL-Context's trainval_merged.json, got another one ({error!r}): {shown_path(source)}"
        ) from None


def _of_regions(name: str, height: int, width: int, regions: list[tuple[int, Any]]) -> npt.NDArray[Any]:
    return renumber(paint_regions(name, height, width, regions), _LABELS, Path(f"{name}.jpg"))
