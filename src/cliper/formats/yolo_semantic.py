"""Ultralytics' data sets for semantic segmentation: folders ``images`` and ``masks``, and ``semantic.yaml``.

Ultralytics 8.4 finds the mask of an image by replacing the last folder ``images`` of its path by ``masks_dir``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cliper.errors import InputError, quote_path
from cliper.files import write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.training_data import IMAGES, check_class_count, class_names, write_class_ids

__all__ = ["YOLO_SEMANTIC", "semantic_yaml"]

_SPLITS = ("train", "val", "test")


def semantic_yaml(classes: Sequence[str], splits: Sequence[str], options: FormatOptions) -> str:
    """The file that names the folders and the classes.

    Args:
        classes: names, without background.
        splits: folders of the images, of ``train``, ``val`` and ``test``; without both ``train`` and ``val`` all images
            are for training and for validation.
        options: whether background is a class.

    Example:
        >>> print(semantic_yaml(["dog"], ["train", "val"], FormatOptions()), end="")
        train: images/train
        val: images/val
        masks_dir: masks
        names:
          0: background
          1: dog
    """
    import yaml

    folders = {"train": "images", "val": "images"}
    if {"train", "val"} <= set(splits) <= set(_SPLITS):
        folders = {split: f"images/{split}" for split in _SPLITS if split in splits}
    content = {**folders, "masks_dir": "masks", "names": class_names(classes, options)}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _check_classes(classes: Sequence[str], options: FormatOptions) -> None:
    check_class_count(classes, options)
    # With one class Ultralytics takes 0 as background and 1 as the class.
    if options.ignore_background and len(classes) < 2:
        raise InputError(f"yolo-semantic without background: expected two classes or more, got {len(classes)}; add one")


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    if "images" in info.name.split("/")[:-1]:
        raise InputError(
            f"{quote_path(info.name)}: expected no folder called images inside the folder of images, because "
            "Ultralytics would look for the mask inside it; rename it"
        )
    write_class_ids(result, path, info, options)


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    path = folder / "semantic.yaml"
    # An image outside of all folders stands for a split that does not exist.
    splits = {output.info.name.partition("/")[0] if "/" in output.info.name else "" for output in outputs}
    write_text(path, semantic_yaml(classes, sorted(splits), options))
    return [path]


YOLO_SEMANTIC = Format(
    "yolo-semantic",
    ".png",
    "images and masks of class ids for Ultralytics; semantic.yaml for the run",
    _write,
    _merge,
    _check_classes,
    merged_files=("semantic.yaml",),
    shows_image=True,
    folder="masks/",
    companions=(IMAGES,),
)
