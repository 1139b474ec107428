"""Folders that Hugging Face's ``datasets.load_dataset`` reads: columns ``image`` and ``label``, both images.

``metadata.jsonl`` pairs the files of ``images`` and ``labels``, ``README.md`` is the card, and ``id2label.json`` names
the class ids, as in the Hub's data sets for semantic segmentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cliper.errors import InputError, quote_path
from cliper.files import dumps, to_utf8, write_json, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.training_data import IGNORED, IMAGES, check_class_count, class_names, write_class_ids

__all__ = ["HF_DATASET", "dataset_card"]

_FOLDER = "labels/"


def dataset_card(classes: Sequence[str], options: FormatOptions) -> str:
    """The text of ``README.md``: which files are the data set, and a table of the class ids.

    Args:
        classes: names, without background.
        options: whether background is a class.
    """
    import yaml

    files = ["metadata.jsonl", f"{IMAGES.folder}**", f"{_FOLDER}**"]
    header = {
        "task_categories": ["image-segmentation"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    }
    rows = [f"| {index} | {_cell(name)} |" for index, name in class_names(classes, options).items()]
    if options.ignore_background:
        rows.append(f"| {IGNORED} | background, to be ignored |")
    return f"""\
---
{yaml.safe_dump(header, sort_keys=False)}---

# Semantic segmentation

`image` is an image. `label` is an image of one channel and the same size, whose pixels are class ids. The labels were
predicted by CLIPer and not corrected.

| id | class |
| --- | --- |
{chr(10).join(rows)}
"""


def _cell(name: str) -> str:
    """Text of a cell of a Markdown table."""
    return " ".join(name.split()).replace("|", "\\|")


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    # A file_name is text, and datasets takes a backslash for a folder.
    if to_utf8(info.name) != info.name or "\\" in info.name:
        raise InputError(
            f"hf-dataset cannot have {quote_path(info.name)}: expected a name in UTF-8 without backslashes; rename it"
        )
    write_class_ids(result, path, info, options)


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    metadata, card, names = folder / "metadata.jsonl", folder / "README.md", folder / "id2label.json"
    stems = (output.info.stem for output in outputs)
    rows = ({"file_name": IMAGES.file_name(stem), "label_file_name": HF_DATASET.file_name(stem)} for stem in stems)
    write_text(metadata, (f"{dumps(row)}\n" for row in rows))
    write_text(card, dataset_card(classes, options))
    write_json(names, class_names(classes, options))
    return [metadata, card, names]


HF_DATASET = Format(
    "hf-dataset",
    ".png",
    "images and label images for Hugging Face datasets; metadata.jsonl and README.md for the run",
    _write,
    _merge,
    check_class_count,
    merged_files=("metadata.jsonl", "README.md", "id2label.json"),
    shows_image=True,
    folder=_FOLDER,
    companions=(IMAGES,),
)
