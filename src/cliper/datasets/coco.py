"""COCO-Object (80 classes and background) and COCO-Stuff (80 thing and 91 stuff classes)."""

from __future__ import annotations

from pathlib import Path

from cliper.datasets.benchmark import Benchmark, Sample, list_files, published_benchmark, read_split

__all__ = ["coco_object", "coco_object_image", "coco_stuff"]

# The names in COCO's own annotations.
_OBJECT_NAMES = {
    "person with cloth people human": "person",
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "chair seat": "chair",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}


def coco_object() -> Benchmark:
    """COCO-Object. Masks: 0 background, 1 to 80 classes in the order of COCO's ids."""
    title = "COCO-Object, 5,000 images of COCO val"
    return published_benchmark(
        "coco-object", title, "coco-object", _object_samples, (5000,), ignore=(255,), names=_OBJECT_NAMES
    )


def coco_stuff() -> Benchmark:
    """COCO-Stuff. Masks: 0 to 170 in the order of COCO-Stuff's ids, 255 unlabelled."""
    title = "COCO-Stuff val2017, 171 classes"
    return published_benchmark("coco-stuff171", title, "coco-stuff", _stuff_samples, (5000,), ignore=(0, 255), offset=1)


def coco_object_image(folder: Path, name: str) -> Path:
    """Image file of a sample in the folder ``coco2014``."""
    return folder / "val2014" / f"COCO_val2014_{name}.jpg"


def _object_samples(root: Path) -> list[Sample]:
    folder = root / "coco2014"
    masks = folder / "coco_seg_anno"
    split = folder / "val2017.txt"
    if split.is_file():
        names = read_split("coco-object", [split])
    else:  # all masks, without those of train2014
        all_names = [path.stem for path in list_files("coco-object", masks, "*.png")]
        names = [name for name in all_names if coco_object_image(folder, name).is_file()] or all_names
    return [Sample(name, coco_object_image(folder, name), masks / f"{name}.png") for name in names]


def _stuff_samples(root: Path) -> list[Sample]:
    folder = root / "coco2017"
    masks = folder / "stuff_anno164" / "val2017"
    images = list_files("coco-stuff171", folder / "val2017", "*.jpg")
    return [Sample(path.stem, path, masks / f"{path.stem}.png") for path in images]
