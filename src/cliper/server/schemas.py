"""Schemas of requests and responses, as the OpenAPI description shows them."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from cliper.settings import Settings

__all__ = [
    "ErrorResponse",
    "ExportImage",
    "ExportRequest",
    "LabelStudioPredict",
    "LabelStudioSetup",
    "MapStack",
    "Mask",
    "SegmentForm",
    "SegmentJson",
    "SegmentParams",
    "SegmentResponse",
    "SettingsChange",
    "XAnyLabelingPredict",
]

Name = Annotated[str, Field(min_length=1, max_length=100_000)]
Short = Annotated[str, Field(min_length=1, max_length=500)]
Names = Name | list[Name]
Share = Annotated[float, Field(ge=0, le=1)]
Extreme = Annotated[float, Field(ge=-1e6, le=1e6)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class StrictModel(BaseModel):
    """Base of requests: no unknown keys, no text for numbers, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _json_type(kind: Any) -> Any:
    """A type with lists for tuples: JSON has no others."""
    if typing.get_origin(kind) is tuple:
        return list[typing.get_args(kind)[0]]  # type: ignore[misc]
    alternatives = typing.get_args(kind)
    return typing.Union[tuple(map(_json_type, alternatives))] if alternatives else kind  # noqa: UP007


if TYPE_CHECKING:

    class SettingsChange(StrictModel):
        """Generated from :class:`cliper.Settings`, which checks the ranges."""

else:
    # A request loads no model, so it cannot name the proxy's.
    _types = {name: kind for name, kind in typing.get_type_hints(Settings).items() if name != "proxy_model"}
    SettingsChange = create_model(
        "SettingsChange",
        __base__=StrictModel,
        __doc__="Settings that differ from the served model's own; `docs/method.md` describes them.",
        **{name: (_json_type(kind) | None, None) for name, kind in _types.items()},
    )


class SegmentParams(StrictModel):
    """What to find in an image, and how to return it."""

    classes: Name | Annotated[list[Name], Field(min_length=1)] = Field(
        description='Names, or "dog; grass". "person: man, woman" is one class that is recognised by two texts.',
        examples=[["dog", "grass"]],
    )
    background: Names | None = Field(
        "auto",
        description='Names of what else is in the image; "auto": common scene words; "none", null or []: no names.',
    )
    settings: SettingsChange = Field(
        default_factory=SettingsChange, description="Settings that differ from the model's own."
    )
    refiner: Short | None = Field(None, description='"none", or the served refiner (default).')
    model: Short | None = Field(None, description="If given, it must be the served model.")
    output: Literal["rle", "polygons", "png", "maps"] = Field("rle", description="What the response contains.")
    tolerance: Annotated[float, Field(ge=0, le=1000)] = Field(
        1.0, description="Of polygons: largest distance of a simplified border from the exact one, in pixels."
    )


class SegmentJson(SegmentParams):
    """A request as JSON."""

    image: Base64 = Field(description="The image file (JPEG, PNG, WebP ...) in base64.")


class SegmentForm(SegmentParams):
    """A request as a form: ``classes`` and ``background`` may be repeated, ``settings`` is JSON."""

    image: str = Field(
        description="The image file; its name is ignored.",
        json_schema_extra={"format": "binary", "contentMediaType": "application/octet-stream"},
    )


class ErrorResponse(BaseModel):
    """Why a request failed."""

    error: str = Field(description="One line: what was expected, what came, what to do.")


class ClassResult(BaseModel):
    """A class of the request."""

    label: int = Field(description="Its number in label maps; 0 is background.")
    name: str
    confidence: float = Field(description="The class is off unless this is above `score_threshold`.")
    area: float = Field(ge=0, le=1, description="Share of the image's pixels.")


class RunLengths(BaseModel):
    """COCO's compressed run lengths."""

    size: list[int] = Field(description="Height and width.")
    counts: str


class Mask(BaseModel):
    """The mask of a class that was found."""

    label: int
    rle: RunLengths


class Polygon(BaseModel):
    """The border of a connected region; holes are joined to the outside by bridges without width."""

    label: int
    area: int = Field(description="Pixels of the region, before it was simplified.")
    points: list[list[int]] = Field(description="x and y of the corners; (0, 0) is the image's top left corner.")


class MapStack(StrictModel):
    """Class maps [C, height, width] in 16 bit: the value is low[c] + (high[c] - low[c]) * integer / 65535."""

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    low: list[Extreme]
    high: list[Extreme]
    data: Base64 = Field(description="Little-endian uint16, class by class, row by row.")


class Maps(StrictModel):
    """Class maps after and before refinement; labels are computed from them as `docs/method.md`, section 4, says."""

    refined: MapStack
    fused: MapStack | None = Field(None, description="Before refinement; null without a refiner: the same.")


class Thresholds(StrictModel):
    """The settings that turn class maps into labels."""

    score_threshold: Share
    background_threshold: Share
    normalize: bool


class SegmentResponse(BaseModel):
    """A segmented image; of ``masks``, ``polygons``, ``png`` and ``maps`` the requested one."""

    model: str
    refiner: str | None
    width: int = Field(description="Of the image, after EXIF orientation.")
    height: int
    classes: list[ClassResult]
    thresholds: Thresholds
    masks: list[Mask] | None = None
    polygons: list[Polygon] | None = None
    png: str | None = Field(
        None,
        description="The label map in base64: an indexed PNG; with labels above 255 grey of 16 bit.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
    )
    maps: Maps | None = None
    seconds: float = Field(description="Time of the model for the batch of this request.")


class ExportImage(StrictModel):
    """An image to export, with its maps or its masks."""

    name: Short = Field(description="File name of the image; the part before the suffix names the exported file.")
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    image: Base64 | None = Field(None, description="The image file; needed by formats that show the image.")
    maps: Maps | None = Field(None, description="As `POST /v1/segment` returns them.")
    masks: list[Mask] | None = Field(None, description="A label map, as `POST /v1/segment` returns it as rle.")
    hidden: list[int] = Field(default_factory=list, description="Labels whose pixels become background.")


class ExportRequest(StrictModel):
    """Images of one class list to write in one format."""

    format: Short = Field(description="A name of `formats` in GET /v1/models.")
    classes: Annotated[list[Name], Field(min_length=1)]
    images: Annotated[list[ExportImage], Field(min_length=1)]
    thresholds: Thresholds | None = Field(None, description="For maps; default: those of the served model.")
    tolerance: Annotated[float, Field(ge=0, le=1000)] = 1.0


class LabelStudioSetup(BaseModel):
    """A project that connects. Host names and tokens in it are not used."""

    model_config = ConfigDict(extra="allow")

    schema_: str | None = Field(None, alias="schema", max_length=1_000_000, description="Its labeling configuration.")


class LabelStudioTask(BaseModel):
    """An image to predict for."""

    model_config = ConfigDict(extra="allow")

    id: int | str | None = None
    data: dict[str, Any]


class LabelStudioPredict(BaseModel):
    """Tasks, and the labeling configuration with the classes."""

    model_config = ConfigDict(extra="allow")

    tasks: list[LabelStudioTask] = Field(min_length=1)
    label_config: str = Field(max_length=1_000_000)


class XAnyLabelingParams(BaseModel):
    """Parameters of X-AnyLabeling; others are ignored."""

    text_prompt: Name
    conf_threshold: Share = Field(0.0, description="Used as `score_threshold` if above 0.")
    epsilon_factor: Share = Field(0.001, description="Tolerance of polygons, as a share of width plus height.")


class XAnyLabelingPredict(BaseModel):
    """A request of X-AnyLabeling."""

    model: str | None = None
    image: Base64 = Field(description="The image file in base64, with or without `data:image/...;base64,`.")
    params: XAnyLabelingParams
