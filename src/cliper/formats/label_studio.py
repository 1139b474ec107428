"""Label Studio: tasks with predictions, a class's mask one brush stroke."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.files import atomic_write, display_name, read_json, to_utf8, write_json, write_json_list, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.label_studio_rle import encode_brush_rle
from cliper.formats.palette import voc_palette

__all__ = ["LABEL_STUDIO", "label_studio_prediction", "label_studio_task", "labeling_config"]

# What the tags of the labelling configuration are called.
_IMAGE, _BRUSH = "image", "tag"


def label_studio_prediction(
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    confidence: Sequence[float],
    *,
    model: str,
    from_name: str = _BRUSH,
    to_name: str = _IMAGE,
) -> dict[str, Any]:
    """A prediction with a brush stroke for each class that was found.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        confidence: C numbers: cut to [0, 1] the strokes' scores; their mean is the prediction's.
        model: what its ``model_version`` says.
        from_name: of the brush in the labelling configuration.
        to_name: of the picture there.

    Example:
        >>> label_studio_prediction(np.array([[0, 1]]), ["dog"], [0.5], model="mini")["score"]
        0.5
    """
    found = [int(label) for label in np.unique(labels) if label]
    height, width = labels.shape
    scores = [min(max(float(share), 0.0), 1.0) for share in confidence]  # it refuses others
    strokes = [
        {
            "id": f"class-{label}",
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": scores[label - 1],
            "value": {"format": "rle", "rle": encode_brush_rle(labels == label), "brushlabels": [classes[label - 1]]},
        }
        for label in found
    ]
    score = sum(scores[label - 1] for label in found) / max(len(found), 1)
    return {"model_version": model, "score": score, "result": strokes}


def label_studio_task(
    labels: npt.NDArray[Any],
    classes: Sequence[str],
    confidence: Sequence[float],
    *,
    image: str,
    model: str,
) -> dict[str, Any]:
    """A task to import: the picture and a prediction with a brush stroke for each class that was found.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        confidence: C numbers: cut to [0, 1] the strokes' scores; their mean is the prediction's.
        image: address of the picture, as Label Studio is to load it.
        model: what the prediction's ``model_version`` says; of a folder's path its last part.
    """
    prediction = label_studio_prediction(labels, classes, confidence, model=display_name(model))
    return {"data": {_IMAGE: image}, "predictions": [prediction]}


def labeling_config(classes: Sequence[str]) -> str:
    """The labelling interface that the tasks are for, in Label Studio's XML.

    Example:
        >>> '<Label value="dog" background="#800000"/>' in labeling_config(["dog"])
        True
    """
    colours = voc_palette(len(classes) + 1)[1:].tolist()
    lines = [
        f"    <Label value={quoteattr(to_utf8(name))} background={quoteattr('#{:02x}{:02x}{:02x}'.format(*colour))}/>"
        for name, colour in zip(classes, colours, strict=True)
    ]
    return "\n".join(
        [
            "<View>",
            f'  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>',
            f'  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">',
            *lines,
            "  </BrushLabels>",
            "</View>",
            "",
        ]
    )


def _check_classes(classes: Sequence[str]) -> None:
    for name in classes:
        # XML has no place for most control characters (Cc), halves of pairs (Cs) and these two.
        if any(unicodedata.category(one) in ("Cc", "Cs") or one in "\ufffe\uffff" for one in name):
            raise InputError(
                f"Label Studio's configuration cannot have a class {name!r}: expected printable characters; give it "
                "another name, as in 'other name: prompt'"
            )


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    # How Label Studio names a picture in a folder that it may read itself ("local storage").
    name = f"{options.image_folder}/{info.name}" if options.image_folder else info.name
    address = "/data/local-files/?d=" + quote(name, errors="surrogateescape")
    task = label_studio_task(
        result.labels, result.classes, np.asarray(result.confidence).tolist(), image=address, model=result.model
    )
    write_json(path, [task])


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    tasks, config = folder / "label-studio.json", folder / "label-studio.xml"
    with atomic_write(tasks) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        write_json_list(stream, _tasks(outputs))
        stream.write("\n")
    write_text(config, labeling_config(classes))
    return [tasks, config]


def _tasks(outputs: Iterable[ImageOutput]) -> Iterator[Any]:
    for output in outputs:
        yield from read_json(output.path, list)


LABEL_STUDIO = Format(
    "label-studio",
    ".label-studio.json",
    "Label Studio predictions with brush strokes; label-studio.json and .xml for the run",
    _write,
    _merge,
    _check_classes,
    merged_files=("label-studio.json", "label-studio.xml"),
)
