"""``POST /v1/export``: class maps or masks of a client, written in any of the package's formats. Nothing is stored."""

from __future__ import annotations

import io
import mimetypes
import re
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.errors import InputError
from cliper.formats import FormatOptions, ImageInfo, ImageOutput, find_format, format_names
from cliper.formats.coco_rle import decompress_counts
from cliper.result import Segmentation
from cliper.server.models import ServedModel
from cliper.server.responses import decode_maps
from cliper.server.schemas import ExportImage, ExportRequest, Mask

__all__ = ["describe_formats", "write_export"]

_NEED_IMAGE = {"overlay", "overlay-jpg", "overlay-webp", "gallery"}
_NEED_MAPS = {"npz"}


def describe_formats() -> list[dict[str, Any]]:
    """As in ``GET /v1/models``."""
    return [
        {"name": name, "summary": find_format(name).summary, "needs_image": name in _NEED_IMAGE}
        for name in format_names()
    ]


def write_export(model: ServedModel, export: ExportRequest) -> tuple[bytes, str, str]:
    """The content, file name and media type: of one file, or a zip of several. Blocks: call it in a thread.

    Raises:
        InputError: a format that does not exist or cannot represent the classes, an image that cannot be used, or maps
            or masks that do not fit.
    """
    chosen, options, limits = find_format(export.format), FormatOptions(tolerance=export.tolerance), model.limits
    if len(export.images) > limits.tasks or len(export.classes) > limits.classes:
        raise InputError(f"expected at most {limits.tasks} images and {limits.classes} classes, got more")
    if chosen.check_classes is not None:
        chosen.check_classes(export.classes)
    # The last part of a path, with characters that no file system objects to.
    lasts = [re.sub(r"[^\w .()+-]", "_", re.split(r"[/\\]", image.name)[-1]) for image in export.images]
    names = [last[-120:].strip(" .") or "image" for last in lasts]
    if len({Path(name).stem.casefold() for name in names}) < len(names):
        raise InputError("images: expected names that differ before the suffix, got two alike; rename one")
    with tempfile.TemporaryDirectory(prefix="cliper-") as temporary:
        folder = Path(temporary)
        outputs = []
        for number, (name, image) in enumerate(zip(names, export.images, strict=True), start=1):
            info = ImageInfo(name, image.width, image.height, number)
            path = folder / f"{info.stem}{chosen.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            chosen.write(_segmentation(model, export, image, chosen.name), path, info, options)
            outputs.append(ImageOutput(info, path))
        if chosen.merge is not None:
            chosen.merge(outputs, folder, export.classes, options)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if len(files) == 1:
            media_type = mimetypes.guess_type(files[0].name)[0] or "application/octet-stream"
            return files[0].read_bytes(), files[0].name, media_type
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
        return buffer.getvalue(), f"{chosen.name}.zip", "application/zip"


def _segmentation(model: ServedModel, export: ExportRequest, image: ExportImage, format: str) -> Segmentation:
    size, classes = (image.width, image.height), len(export.classes)
    model.check_labels(size, classes)
    if image.image is None and format in _NEED_IMAGE:
        raise InputError(f"image: expected an image, because format {format} shows it; send one")
    pixels = Image.new("RGB", size) if image.image is None else model.decode(image.image)
    if pixels.size != size:
        raise InputError(f"image: expected {size[0]}x{size[1]} pixels, got {pixels.width}x{pixels.height}")
    refined = fused = np.zeros((classes, 1, 1), np.float32)
    labels = np.zeros((image.height, image.width), np.int32)
    if image.maps is not None and image.masks is None:
        refined = decode_maps(image.maps.refined, classes)
        fused = refined if image.maps.fused is None else decode_maps(image.maps.fused, classes)
    elif image.masks is not None and image.maps is None and format not in _NEED_MAPS:
        labels = _paint(image.masks, size, classes)
    else:
        raise InputError(f"images: expected maps, or masks for a format other than {', '.join(_NEED_MAPS)}")
    settings = model.settings
    if export.thresholds is not None:
        settings = settings.replace(**export.thresholds.model_dump())
    result = Segmentation(
        image=pixels,
        classes=tuple(export.classes),
        labels=labels,
        confidence=np.ones(classes, np.float32),
        maps=fused,
        refined=refined,
        settings=settings,
        model=model.name,
        refiner=model.refiner,
    )
    if image.maps is not None:
        confidence = (refined.max((1, 2)) * 0.5 + fused.max((1, 2)) * 0.5).astype(np.float32)
        result = replace(result, confidence=confidence).relabel()
    return replace(result, labels=np.where(np.isin(result.labels, image.hidden), 0, result.labels))


def _paint(masks: list[Mask], size: tuple[int, int], classes: int) -> npt.NDArray[np.int32]:
    width, height = size
    labels = np.zeros(width * height, np.int32)
    for mask in masks:
        counts = decompress_counts(mask.rle.counts)
        fits = mask.rle.size == [height, width] and (counts >= 0).all() and counts.sum() <= labels.size
        if not fits or not 1 <= mask.label <= classes:
            raise InputError(f"masks: expected size [{height}, {width}] and labels from 1 to {classes}, got others")
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        labels[: len(inside)][inside] = mask.label
    return labels.reshape(width, height).T.copy()
