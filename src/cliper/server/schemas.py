"""Schemas of requests and responses, as the OpenAPI description shows them."""

from __future__ import annotations

import base64
import typing
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from cliper.server.request_body import MAX_ITEMS
from cliper.settings import Settings, setting_limits

__all__ = [
    "ErrorResponse",
    "ExportImage",
    "ExportRequest",
    "LabelStudioPredict",
    "SegmentRequest",
    "SegmentResponse",
    "SettingsChange",
    "XAnyLabelingPredict",
    "decode_base64",
]


def decode_base64(value: Any) -> Any:
    """The bytes of a text in base64, with or without ``data:image/...;base64,``; another value unchanged.

    Raises:
        ValueError: not base64; line ends and other characters outside base64 are refused.

    Example:
        >>> decode_base64("data:image/png;base64,aGk=")
        b'hi'
    """
    if not isinstance(value, str):
        return value
    text = value.partition(";base64,")[2] if value[:11].lower() == "data:image/" else value
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"expected base64, could not read it ({str(error)[:200]})") from None


Name = Annotated[str, Field(min_length=1, max_length=100_000)]
Short = Annotated[str, Field(min_length=1, max_length=500)]
Names = Annotated[list[Name], Field(max_length=MAX_ITEMS)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1)]
Pixels = Annotated[float, Field(ge=0, le=1000)]
Extremes = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=MAX_ITEMS)]
_BASE64_SCHEMA = {"type": "string", "contentEncoding": "base64"}
Base64 = Annotated[bytes, BeforeValidator(decode_base64), WithJsonSchema(_BASE64_SCHEMA)]
Layer = Annotated[str, Field(pattern=r"attentions\.\d")]  # one layer, not a block of them


class StrictModel(BaseModel):
    """Base of requests: no unknown keys, no text for numbers, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


# Limits of requests that are narrower than those of the settings: they bound the cost, and a request loads no model.
_NARROWER: dict[str, tuple[Any, ...]] = {
    "attention": (tuple(name for name in setting_limits("attention")[0] if name != "proxy"),),
    "refine_size": (64, 512),
    "refine_max_patches": (1, 4096),
    "refine_balance": (0, 15),
}
_MAX_LENGTHS = {"templates": 16, "refine_layers": 4, "refine_size": 2, "extra_sizes": 2}


def _constrain(kind: Any, name: str) -> Any:
    """The type of a setting within its limits, with lists for tuples: JSON has no others."""
    limits = _NARROWER.get(name, setting_limits(name))
    if typing.get_origin(kind) is tuple:
        item: Any = Layer if name == "refine_layers" else typing.get_args(kind)[0]
        items = list[_constrain(item, name) if item is int else item]  # type: ignore[misc, valid-type]
        return Annotated[items, Field(min_length=1, max_length=_MAX_LENGTHS[name])]
    if alternatives := typing.get_args(kind):
        return Union[tuple(_constrain(one, name) for one in alternatives)]  # noqa: UP007
    if kind is str and limits:
        return Literal[limits[0]]
    return Annotated[kind, Field(ge=limits[0], le=limits[1])] if kind in (int, float) else kind


_types, _models = typing.get_type_hints(Settings), ("proxy_model", "refine_vae")
_fields: Any = {name: (_constrain(kind, name) | None, None) for name, kind in _types.items() if name not in _models}


class SettingsChange(create_model("_Settings", __base__=StrictModel, **_fields)):  # type: ignore[misc]
    """Settings that differ from the served model's own; `docs/method.md` describes them."""


class SegmentRequest(StrictModel):
    """An image and what to find in it. In a form, `classes` and `background` may be repeated, `settings` is JSON."""

    image: Base64 = Field(description="The image file (JPEG, PNG, WebP ...); its name in a form is ignored.")
    classes: Name | Annotated[Names, Field(min_length=1)] = Field(
        description='Names, or "dog; grass". "person: man, woman" is one class that is recognised by two texts.',
        examples=[["dog", "grass"]],
    )
    background: Name | Names | None = Field(
        "auto", description='Names of what else is in the image; "auto": common scene words; "none", null or []: none.'
    )
    settings: SettingsChange = Field(default_factory=SettingsChange)
    refiner: Short | None = Field(None, description='"none", or the served refiner (default).')
    model: Short | None = Field(None, description="If given, it must be the served model.")
    output: Literal["rle", "polygons", "png", "maps"] = Field("rle", description="What the response contains.")
    tolerance: Pixels = Field(1.0, description="Largest distance of a polygon from the exact border, in pixels.")


class ErrorResponse(BaseModel):
    """Why a request failed, in one line: what was expected, what came, what to do."""

    error: str


class ClassResult(BaseModel):
    """A class of the request; label 0 is background."""

    label: int
    name: str
    confidence: float = Field(description="The class is off unless this is above `score_threshold`; it may be above 1.")
    area: Share = Field(description="Share of the image's pixels.")


class RunLengths(BaseModel):
    """COCO's compressed run lengths; size is height and width."""

    size: Annotated[list[int], Field(max_length=2)]
    counts: str


class Mask(BaseModel):
    """The mask of a class that was found."""

    label: int
    rle: RunLengths


class Polygon(BaseModel):
    """The border of a region of `area` pixels, at least 0.01 % of the image, as [x, y]; bridges lead to holes."""

    label: int
    area: int
    points: list[list[int]]


class MapStack(StrictModel):
    """Class maps [C, height, width] in 16 bit: the value is low[c] + (high[c] - low[c]) * integer / 65535."""

    height: Annotated[Side, Field(le=4096)]
    width: Annotated[Side, Field(le=4096)]
    low: Extremes
    high: Extremes
    data: str = Field(
        description="Little-endian uint16, class by class, row by row.",
        json_schema_extra={"contentEncoding": "base64"},
    )


class Maps(StrictModel):
    """Class maps after and before refinement; labels are computed from them as `docs/method.md`, section 4, says."""

    refined: MapStack
    fused: MapStack | None = Field(None, description="Null if the refined maps are the same.")


class Thresholds(StrictModel):
    """The settings that turn class maps into labels."""

    score_threshold: Share
    background_threshold: Share
    normalize: bool


class SegmentResponse(BaseModel):
    """A segmented image; of `masks`, `polygons`, `png` and `maps` the requested one."""

    model: str
    refiner: str | None
    width: int = Field(description="Of the image, after EXIF orientation.")
    height: int
    classes: list[ClassResult]
    thresholds: Thresholds
    notes: list[str] = Field(description="On classes that the model was not taught, and commas that separated classes.")
    masks: list[Mask] | None = None
    polygons: list[Polygon] | None = None
    png: Base64 | None = Field(None, description="The label map: an indexed PNG; above 255 labels grey of 16 bit.")
    maps: Maps | None = None
    seconds: float = Field(description="Time of the model for the batch of this request.")


class ExportImage(StrictModel):
    """An image to export, with maps or masks as `POST /v1/segment` returns them."""

    name: Short = Field(description="File name of the image; the part before the suffix names the exported file.")
    width: Side
    height: Side
    image: Base64 | None = Field(None, description="The image file; needed by formats that show the image.")
    maps: Maps | None = None
    masks: Annotated[list[Mask], Field(max_length=MAX_ITEMS)] | None = None
    hidden: Annotated[list[int], Field(max_length=MAX_ITEMS)] = Field([], description="Labels that are not exported.")


class ExportRequest(StrictModel):
    """Images of one class list to write in one format."""

    format: Short = Field(description="A name of `formats` in GET /v1/models.")
    classes: Annotated[Names, Field(min_length=1)]
    images: Annotated[list[ExportImage], Field(min_length=1, max_length=MAX_ITEMS)]
    thresholds: Thresholds | None = Field(None, description="For maps; default: those of the served model.")
    tolerance: Pixels = 1.0


class LabelStudioPredict(BaseModel):
    """Tasks, and the labeling configuration with the classes."""

    tasks: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_ITEMS)
    label_config: str = Field(max_length=1_000_000)


class XAnyLabelingParams(BaseModel):
    """Parameters of X-AnyLabeling; others are ignored."""

    text_prompt: Name
    conf_threshold: Share = Field(0.0, description="Used as `score_threshold` if above 0.")
    epsilon_factor: Share = Field(0.001, description="Tolerance of polygons, as a share of width plus height.")


class XAnyLabelingPredict(BaseModel):
    """A request of X-AnyLabeling."""

    model: str | None = None
    image: Base64
    params: XAnyLabelingParams
