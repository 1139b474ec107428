"""COCO-Object: the 80 things of COCO as a semantic segmentation, with a background class."""

from __future__ import annotations

from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample, list_files, plain_names, read_split
from cliper.benchmarks.texts import benchmark_texts

__all__ = ["coco_object", "image_path"]

# The names in COCO's own annotations.
_NAMES = {
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
    """Masks hold 0 background, 1 to 80 classes in the order of COCO's own ids."""
    texts = benchmark_texts("coco-object")
    return Benchmark(
        name="coco-object",
        title="COCO-Object, 5,000 pictures of COCO val",
        texts=texts,
        class_names=plain_names(texts, _NAMES),
        ignore=(255,),
        size=5000,
        samples=_samples,
    )


def _samples(root: Path) -> list[Sample]:
    folder = root / "coco2014"
    masks = folder / "coco_seg_anno"
    listed = folder / "val2017.txt"
    if listed.is_file():
        names = read_split("coco-object", [listed])
    else:  # the masks that are there, less those of train2014
        named = [path.stem for path in list_files("coco-object", masks, "*.png")]
        names = [name for name in named if image_path(folder, name).is_file()]
        if not names:
            names = named
    return [Sample(name, image_path(folder, name), masks / f"{name}.png") for name in names]


def image_path(folder: Path, name: str) -> Path:
    """File of an image in the folder ``coco2014``."""
    return folder / "val2014" / f"COCO_val2014_{name}.jpg"
