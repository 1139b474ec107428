"""Label Studio: tasks with predictions, one brush mask per class."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from cliper.errors import ClassListError, InputError
from cliper.files import json_list, to_utf8, write_json, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage, bounded_confidence
from cliper.formats.label_studio_rle import encode_brush_rle
from cliper.formats.palette import hex_colours
from cliper.formats.regions import DEFAULT_MIN_AREA, class_regions, clear_small_regions

__all__ = [
    "LABEL_STUDIO",
    "LabelConfig",
    "display_name",
    "label_studio_prediction",
    "label_studio_task",
    "labeling_config",
    "read_label_config",
]

# Names of the tags in the labeling configuration.
_IMAGE, _BRUSH = "image", "tag"


def display_name(model: str) -> str:
    """A model's name without the folders of this machine; aliases and hub names stay as they are.

    Example:
        >>> [display_name(name) for name in ("ViT-B/16", "/home/me/models/mine", "./mine")]
        ['ViT-B/16', 'mine', 'mine']
    """
    path = Path(model)
    return path.resolve().name if path.is_absolute() or model.startswith((".", "~")) else model


def label_studio_prediction(
    result: LabeledImage,
    *,
    model_version: str,
    from_name: str = _BRUSH,
    to_name: str = _IMAGE,
    min_area: int | str = DEFAULT_MIN_AREA,
) -> dict[str, Any]:
    """A prediction with a brush mask for each class that was found.

    The prediction's score is the mean of the classes'.

    Args:
        result: what to convert.
        model_version: stored in the prediction.
        from_name: name of the brush in the labeling configuration.
        to_name: name of the image there.
        min_area: smaller regions are left out of the masks; pixels, or a share of the image.
    """
    labels = clear_small_regions(result.labels, min_area)
    height, width = labels.shape
    confidence = bounded_confidence(result.confidence).tolist()
    masks = [
        {
            "id": f"class-{region.label}",
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": confidence[region.label - 1],
            "value": {
                "format": "rle",
                "rle": encode_brush_rle(labels == region.label),
                "brushlabels": [result.classes[region.label - 1]],
            },
        }
        for region in class_regions(labels)
    ]
    score = sum(mask["score"] for mask in masks) / max(len(masks), 1)
    return {"model_version": model_version, "score": score, "result": masks}


def label_studio_task(result: LabeledImage, image_url: str, min_area: int | str = DEFAULT_MIN_AREA) -> dict[str, Any]:
    """A task to import: the image's address and a prediction.

    Args:
        result: what to convert.
        image_url: address from which Label Studio loads the image.
        min_area: as for :func:`label_studio_prediction`.
    """
    prediction = label_studio_prediction(result, model_version=display_name(result.model), min_area=min_area)
    return {"data": {_IMAGE: image_url}, "predictions": [prediction]}


def labeling_config(classes: Sequence[str]) -> str:
    """The labeling interface of these tasks, as Label Studio's XML.

    Example:
        >>> '<Label value="dog" background="#e69f00"/>' in labeling_config(["dog"])
        True
    """
    colours = hex_colours(len(classes) + 1)[1:]
    labels = "\n".join(
        f'    <Label value={quoteattr(to_utf8(name))} background="{colour}"/>'
        for name, colour in zip(classes, colours, strict=True)
    )
    return f"""\
<View>
  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>
  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">
{labels}
  </BrushLabels>
</View>
"""


class LabelConfig(NamedTuple):
    """The first ``BrushLabels`` of a labeling configuration that belongs to an ``Image``."""

    brush: str  # name of the tag BrushLabels
    image: str  # name of the tag Image
    value: str  # key of the image in a task's data
    labels: tuple[tuple[str, str], ...]  # for each class its text, and its name in results


def read_label_config(text: str) -> LabelConfig:
    """Read a labeling configuration, which is untrusted. Document types, and with them entities, are refused.

    Raises:
        ClassListError: not XML, no ``BrushLabels`` for an ``Image``, or no labels.

    Example:
        >>> brush = '<BrushLabels name="b" toName="i"><Label value="dog"/></BrushLabels>'
        >>> read_label_config(f'<View><Image name="i" value="$p"/>{brush}</View>').labels
        (('dog', 'dog'),)
    """
    try:
        if "<!DOCTYPE" in text:
            raise ValueError("it has a document type")
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ClassListError(f"label_config: expected Label Studio's XML, could not read it ({error})") from None
    images = {image.get("name"): image.get("value", "") for image in root.iter("Image")}
    for brush in root.iter("BrushLabels"):
        value = images.get(brush.get("toName"), "")
        if not value.startswith("$") or len(value) < 2:
            continue
        labels = [(label.get("value", "").strip(), label) for label in brush.iter("Label")]
        if not labels or any(not name or ";" in name for name, _ in labels):
            raise ClassListError("label_config: expected <Label> tags with a value and without ';'; correct them")
        pairs = tuple((name, label.get("alias", name)) for name, label in labels)
        return LabelConfig(brush.get("name", ""), brush.get("toName", ""), value[1:], pairs)
    raise ClassListError(
        'label_config: expected <Image name="image" value="$image"/> and <BrushLabels toName="image" ...>, got none'
    )


def _check_classes(classes: Sequence[str], options: FormatOptions) -> None:
    for name in classes:
        # XML cannot hold most control characters (Cc), surrogates (Cs) and these two.
        if any(unicodedata.category(one) in ("Cc", "Cs") or one in "\ufffe\uffff" for one in name):
            raise InputError(
                f"Label Studio's configuration cannot have a class {name!r}: expected printable characters; give it "
                "another name, as in 'other name: prompt'"
            )


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    name = f"{options.image_folder}/{info.name}" if options.image_folder else info.name
    # The address of an image in a folder that Label Studio may read ("local storage").
    url = "/data/local-files/?d=" + quote(name, errors="surrogateescape")
    write_json(path, [label_studio_task(result, url, options.min_area)])


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    tasks, config = folder / "label-studio.json", folder / "label-studio.xml"
    items = (task for output in outputs for task in output.read_json(list))
    write_text(tasks, chain(json_list(items), ["\n"]))
    write_text(config, labeling_config(classes))
    return [tasks, config]


LABEL_STUDIO = Format(
    "label-studio",
    ".label-studio.json",
    "Label Studio predictions with brush strokes; label-studio.json and .xml for the run",
    _write,
    _merge,
    _check_classes,
    merged_files=("label-studio.json", "label-studio.xml"),
)
