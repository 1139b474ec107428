"""The miniature data sets as benchmarks read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_trees.content import CONTENT, labels_of, make_image

VOC2012 = Path("VOCdevkit/VOC2012")
VOC2010 = Path("VOCdevkit/VOC2010")


def write_png(path: Path, values: np.ndarray, *, indexed: bool = False) -> None:
    """Grey, or with a palette as VOC's masks have one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if indexed:
        image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)


def write_lines(path: Path, names: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")


def image_path(benchmark: str, name: str) -> Path:
    """Path of an image below the root folder."""
    city = name.partition("_")[0]
    return {
        "voc21": VOC2012 / "JPEGImages" / f"{name}.jpg",
        "voc20": VOC2012 / "JPEGImages" / f"{name}.jpg",
        "context60": VOC2010 / "JPEGImages" / f"{name}.jpg",
        "context59": VOC2010 / "JPEGImages" / f"{name}.jpg",
        "coco-object": Path("coco2014/val2014") / f"COCO_val2014_{name}.jpg",
        "coco-stuff171": Path("coco2017/val2017") / f"{name}.jpg",
        "ade150": Path("ADEChallengeData2016/images/validation") / f"{name}.jpg",
        "cityscapes": Path("CityScapes/leftImg8bit/val") / city / f"{name}_leftImg8bit.png",
    }[benchmark]


def mask_path(benchmark: str, name: str) -> Path:
    """Path of a mask below the root folder."""
    city = name.partition("_")[0]
    return {
        "voc21": VOC2012 / "SegmentationClassAug" / f"{name}.png",
        "voc20": VOC2012 / "SegmentationClassAug" / f"{name}.png",
        "context60": VOC2010 / "SegmentationClassContext" / f"{name}.png",
        "context59": VOC2010 / "SegmentationClassContext" / f"{name}.png",
        "coco-object": Path("coco2014/coco_seg_anno") / f"{name}.png",
        "coco-stuff171": Path("coco2017/stuff_anno164/val2017") / f"{name}.png",
        "ade150": Path("ADEChallengeData2016/annotations/validation") / f"{name}.png",
        "cityscapes": Path("CityScapes/gtFine/val") / city / f"{name}_gtFine_labelTrainIds.png",
    }[benchmark]


def write_images(benchmark: str, root: Path) -> None:
    for number, name in enumerate(CONTENT[benchmark][0]):
        path = root / image_path(benchmark, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(benchmark, number).save(path)


def write_lists(benchmark: str, root: Path) -> None:
    """The data set's own list of names, where it has one."""
    names = CONTENT[benchmark][0]
    if benchmark.startswith("voc"):
        write_lines(root / VOC2012 / "ImageSets" / "Segmentation" / "val.txt", names)
    elif benchmark.startswith("context"):
        write_lines(root / VOC2010 / "ImageSets" / "Main" / "val.txt", names)


def _less_one(labels: np.ndarray) -> np.ndarray:
    """As the mask of a benchmark that adds one on reading."""
    return np.where(labels == 255, 255, labels.astype(int) - 1)


STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {"coco-stuff171": _less_one, "cityscapes": _less_one}


def build_tree(benchmark: str, root: Path) -> None:
    """Write images, masks and lists of one benchmark below ``root``."""
    write_images(benchmark, root)
    write_lists(benchmark, root)
    for number, name in enumerate(CONTENT[benchmark][0]):
        stored = STORED.get(benchmark, lambda labels: labels)(labels_of(benchmark, number))
        write_png(root / mask_path(benchmark, name), stored, indexed=benchmark.startswith("voc"))
