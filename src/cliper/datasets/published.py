"""The published benchmarks by name: file layouts, label conventions and plain names of classes."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from cliper.datasets.benchmark import Benchmark, Sample, match_files, read_split
from cliper.datasets.texts import benchmark_texts
from cliper.errors import InputError

__all__ = ["benchmark_names", "coco_object_image", "find_benchmark"]


def benchmark_names() -> list[str]:
    """Names of all benchmarks, in the order of the published table."""
    return list(_BENCHMARKS)


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        InputError: the name is unknown.

    Example:
        >>> find_benchmark("voc21").class_names[:2]
        ('aeroplane', 'bicycle')
    """
    key = name.strip().lower()
    if key not in _BENCHMARKS:
        near = difflib.get_close_matches(key, _BENCHMARKS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"expected a benchmark, one of {', '.join(_BENCHMARKS)}, got {name!r}{hint}")
    title, family, samples, sizes, ignore, offset = _BENCHMARKS[key]
    texts = benchmark_texts(family)
    plain = _COCO_NAMES if family == "coco-object" else _PLAIN_NAMES
    class_names = tuple(plain.get(item.name, item.name) for item in texts.classes)
    return Benchmark(key, title, texts, class_names, ignore, samples, sizes, offset, family=family)


def coco_object_image(folder: Path, name: str) -> Path:
    """Image file of a sample in the folder ``coco2014``."""
    return folder / "val2014" / f"COCO_val2014_{name}.jpg"


def _voc_samples(root: Path) -> list[Sample]:
    folder = root / "VOCdevkit" / "VOC2012"
    names = read_split("VOC", [folder / "ImageSets" / "Segmentation" / "val.txt"])
    # On val the augmented masks equal VOC's own.
    augmented = folder / "SegmentationClassAug"
    return _pascal_samples(folder, names, augmented if augmented.is_dir() else folder / "SegmentationClass")


def _context_samples(root: Path) -> list[Sample]:
    folder = root / "VOCdevkit" / "VOC2010"
    lists = folder / "ImageSets"
    names = read_split("context", [lists / "SegmentationContext" / "val.txt", lists / "Main" / "val.txt"])
    return _pascal_samples(folder, names, folder / "SegmentationClassContext")


def _pascal_samples(folder: Path, names: list[str], masks: Path) -> list[Sample]:
    return [Sample(name, folder / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png") for name in names]


def _coco_object_samples(root: Path) -> list[Sample]:
    folder = root / "coco2014"
    masks = folder / "coco_seg_anno"
    split = folder / "val2017.txt"
    if split.is_file():
        names = read_split("coco-object", [split])
    else:  # all masks, without those of train2014
        all_names = [path.stem for path in match_files("coco-object", masks, "*.png")]
        names = [name for name in all_names if coco_object_image(folder, name).is_file()] or all_names
    return [Sample(name, coco_object_image(folder, name), masks / f"{name}.png") for name in names]


def _coco_stuff_samples(root: Path) -> list[Sample]:
    folder = root / "coco2017"
    return _paired_samples("coco-stuff171", folder / "val2017", folder / "stuff_anno164" / "val2017")


def _ade_samples(root: Path) -> list[Sample]:
    # The published spelling, and the spelling of CLIPer's authors.
    folders = (root / "ADEChallengeData2016", root / "ADEchallengeData2016")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return _paired_samples("ade150", folder / "images" / "validation", folder / "annotations" / "validation")


def _paired_samples(benchmark: str, images: Path, masks: Path) -> list[Sample]:
    return [Sample(path.stem, path, masks / f"{path.stem}.png") for path in match_files(benchmark, images, "*.jpg")]


def _cityscapes_samples(root: Path) -> list[Sample]:
    folder = root / "CityScapes"
    samples: list[Sample] = []
    for image in match_files("cityscapes", folder / "leftImg8bit" / "val", "*/*_leftImg8bit.png"):
        stem = image.name.removesuffix("_leftImg8bit.png")
        mask = folder / "gtFine" / "val" / image.parent.name / f"{stem}_gtFine_labelTrainIds.png"
        samples += (Sample(f"{stem}#{half}", image, mask, (i, 2)) for i, half in enumerate(("left", "right")))
    return samples


# Prompt -> plain name, where they differ.
_PLAIN_NAMES = {
    "bird avian": "bird",
    "chair seat": "chair",
    "person with clothes, people, human": "person",
    "person with cloth people human": "person",
    "tvmonitor screen": "tvmonitor",
}
# The names in COCO's own annotations.
_COCO_NAMES = _PLAIN_NAMES | {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}

_Row = tuple[str, str, Callable[[Path], list[Sample]], tuple[int, ...], tuple[int, ...], int]
_CONTEXT = ("context", _context_samples, (5104, 5105))  # VOC 2010's list has one image more than the published JSON

# Title, family of prompts, samples, accepted sizes, ignored labels (with 0 there is no background class), and offset of
# the masks' values. Masks: VOC 0 background, 1 to 20 classes, 255 borders; Context 0 to 59; COCO-Object 0 to 80 and
# COCO-Stuff 0 to 170 (255 unlabelled) in the order of their ids; ADE20K 0 unlabelled, 1 to 150; Cityscapes train ids 0
# to 18, 255 for everything else.
_BENCHMARKS: dict[str, _Row] = {
    "voc21": ("PASCAL VOC 2012 val, with background", "voc", _voc_samples, (1449,), (255,), 0),
    "voc20": ("PASCAL VOC 2012 val, without background", "voc", _voc_samples, (1449,), (0, 255), 0),
    "context60": ("PASCAL-Context val, with background", *_CONTEXT, (255,), 0),
    "context59": ("PASCAL-Context val, without background", *_CONTEXT, (0, 255), 0),
    "coco-object": (
        "COCO-Object, 5,000 images of COCO val", "coco-object", _coco_object_samples, (5000,), (255,), 0,
    ),
    "coco-stuff171": ("COCO-Stuff val2017, 171 classes", "coco-stuff", _coco_stuff_samples, (5000,), (0, 255), 1),
    "ade150": ("ADE20K validation, 150 classes", "ade", _ade_samples, (2000,), (0, 255), 0),
    "cityscapes": (
        "Cityscapes val, 19 classes, in halves", "cityscapes", _cityscapes_samples, (1000,), (0, 255), 1,
    ),
}  # fmt: skip
