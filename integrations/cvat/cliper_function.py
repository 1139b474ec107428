"""CVAT auto-annotation function: labels the images of a task. README.md says how to run it."""

from __future__ import annotations

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import LabeledShapeRequest
from PIL import Image

import cliper
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import Region, find_regions
from cliper.prompts import parse_classes


class CliperFunction:
    """A detection function: each connected region of a class is a mask, or a polygon.

    Args:
        segmenter: model, refiner and settings.
        classes: ``"horse; person: man, woman"``; their names are the names of the task's labels.
        background: ``"auto"``, ``"none"`` or names, as for :class:`cliper.Segmenter`.
        min_area: smaller regions are left out; pixels, or a share of the image.
        tolerance: of polygons, in pixels.
    """

    def __init__(
        self, segmenter: cliper.Segmenter, classes: str, *, background: str, min_area: str, tolerance: float
    ) -> None:
        self._segmenter, self._classes, self._background = segmenter, classes, background
        self._min_area, self._tolerance = min_area, tolerance
        names = [one.name for one in parse_classes(classes)]
        labels = [cvataa.label_spec(name, label, type="mask") for label, name in enumerate(names, start=1)]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """The regions of an image; with a confidence threshold, those of the classes that reach it."""
        result = self._segmenter(image.convert("RGB"), self._classes, self._background)
        threshold = context.conf_threshold or 0
        regions = find_regions(result.labels, self._min_area)
        return [
            self._shape(region, polygon=context.conv_mask_to_poly)
            for region in regions
            if result.confidence[region.label - 1] >= threshold
        ]

    def _shape(self, region: Region, *, polygon: bool) -> LabeledShapeRequest:
        if polygon:
            points = region_polygon(region, self._tolerance).ravel().astype(float)
            return cvataa.polygon(region.label, points.tolist())
        *runs, left, top, right, bottom = encode_mask(region.mask)  # in the region's box
        x, y = region.left, region.top
        return cvataa.mask(region.label, [*runs, left + x, top + y, right + x, bottom + y])


def create(
    classes: str,
    model: str = "mini",
    refiner: str = "",
    settings: str = "",
    background: str = "auto",
    min_area: str = "0.01%",
    tolerance: float = 1.0,
    device: str = "",
) -> CliperFunction:
    """The function, from the parameters that ``cvat-cli`` gives; an empty text is the default."""
    segmenter = cliper.Segmenter.from_pretrained(model, refiner or None, settings or None, device or None)
    return CliperFunction(segmenter, classes, background=background, min_area=min_area, tolerance=tolerance)
