"""What the service takes and gives, as its OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ClassFound",
    "Health",
    "LabelStudioHealth",
    "LabelStudioPredict",
    "LabelStudioResults",
    "LabelStudioSetup",
    "LabelStudioTask",
    "LabelStudioVersion",
    "Mask",
    "ModelList",
    "Polygon",
    "Problem",
    "RunLengths",
    "SegmentAnswer",
    "SegmentForm",
    "SegmentJson",
    "ServedLimits",
    "ServedModel",
    "SettingsChange",
    "Wishes",
]

Name = Annotated[str, Field(min_length=1, max_length=100_000)]
Short = Annotated[str, Field(min_length=1, max_length=200)]
Names = Name | list[Name]
Share = Annotated[float, Field(ge=0, le=1)]
Template = Annotated[str, Field(min_length=2, max_length=200, pattern=r"^[^{}]*\{\}[^{}]*$")]
Templates = Annotated[list[Template], Field(min_length=1, max_length=16)]
RefineSide = Annotated[int, Field(ge=64, le=2048)]


class Taken(BaseModel):
    """What is taken: no unknown keys, no texts for numbers, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SettingsChange(Taken):
    """Settings that differ from the served model's own; ``docs/method.md`` says what they mean."""

    recipe: Literal["conference", "preprint", "preprint-h"] | None = None
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    logit_scale: Annotated[float, Field(ge=0, le=10000)] | None = None
    map_threshold: Share | None = None
    select_layer: Annotated[int, Field(ge=-1000, le=999)] | None = None
    window: Annotated[int, Field(ge=0, le=4096)] | None = None
    attention: Literal["fused", "vanilla", "q-q", "k-k", "v-v", "identity", "proxy"] | None = None
    fuse_features: bool | None = None
    score_threshold: Share | None = None
    background_threshold: Share | None = None
    normalize: bool | None = None
    templates: Literal["imagenet80", "scene15"] | Templates | None = None
    refine_threshold: Share | None = None
    refine_mode: Literal["chain", "mean", "selected"] | None = None
    refine_map_index: Annotated[int, Field(ge=0, le=10000)] | None = None
    refine_layers: Annotated[list[Short], Field(min_length=1, max_length=4)] | None = None
    refine_size: RefineSide | Annotated[list[RefineSide], Field(min_length=2, max_length=2)] | None = None
    refine_max_patches: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    refine_resize: Literal["nearest", "bilinear", "bicubic", "area"] | None = None
    refine_step: Annotated[int, Field(ge=0, le=49)] | None = None


class Wishes(Taken):
    """What is asked of a picture."""

    classes: Name | Annotated[list[Name], Field(min_length=1)] = Field(
        description='Names, or "dog; grass". "person: man, woman" is one class that is recognised by two texts.',
        examples=[["dog", "grass"]],
    )
    background: Names | None = Field(
        "auto",
        description='Names of what is not asked for; "auto" takes common scene words; "none", null or [] takes none.',
    )
    settings: SettingsChange = Field(default_factory=SettingsChange, description="What differs from the model's own.")
    refiner: Short | None = Field(None, description='"none", or the one that is served; by default the served one.')
    model: Short | None = Field(None, description="If given, it must be the one that is served.")
    format: Literal["rle", "polygons", "png"] = Field("rle", description="How masks are answered.")
    tolerance: Annotated[float, Field(ge=0, le=1000)] = Field(
        1.0, description="Of polygons, in pixels: how far a simplified border may be from the exact one."
    )


class SegmentJson(Wishes):
    """A request as JSON."""

    image: str = Field(
        description="The picture's file (JPEG, PNG, WebP ...) in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    )


class SegmentForm(Wishes):
    """A request as a form: ``classes`` and ``background`` may be repeated, ``settings`` is JSON."""

    image: str = Field(
        description="The picture's file; its name does not matter.",
        json_schema_extra={"format": "binary", "contentMediaType": "application/octet-stream"},
    )


class Problem(BaseModel):
    """Why there is no result."""

    error: str = Field(description="One line: what was expected, what came, what to do.")


class ClassFound(BaseModel):
    """A class that was asked for."""

    label: int = Field(description="Its number in label maps; 0 is background.")
    name: str
    confidence: float = Field(description="Not above the setting `score_threshold`: the class is off.")
    area: float = Field(ge=0, le=1, description="Share of the picture's pixels.")


class RunLengths(BaseModel):
    """COCO's compressed run lengths."""

    size: list[int] = Field(description="Height and width.")
    counts: str


class Mask(BaseModel):
    """Where a class is; classes that were not found have none."""

    label: int
    rle: RunLengths


class Polygon(BaseModel):
    """The border of a connected region; holes are joined to the outside by bridges without width."""

    label: int
    area: int = Field(description="Pixels of the region, before it was simplified.")
    points: list[list[int]] = Field(description="x and y of the corners; (0, 0) is the picture's top left corner.")


class SegmentAnswer(BaseModel):
    """A segmented picture; of ``masks``, ``polygons`` and ``png`` the one that was asked for."""

    model: str
    refiner: str | None
    width: int = Field(description="Of the picture, turned upright.")
    height: int
    classes: list[ClassFound]
    masks: list[Mask] | None = None
    polygons: list[Polygon] | None = None
    png: str | None = Field(
        None,
        description="The label map in base64: an indexed PNG; with labels above 255 a grey one of 16 bit.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
    )
    seconds: float = Field(description="That the model took, for all pictures that it saw together.")


class ServedLimits(BaseModel):
    """Beyond these a request is refused."""

    queue: int
    megabytes: float
    megapixels: float
    classes: int
    labelling: float
    patches: int
    texts: int
    tasks: int
    seconds: float


class ServedModel(BaseModel):
    """The model that is served."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    source: str
    revision: str | None
    refiner: str | None
    device: str
    dtype: str
    batch: int = Field(description="So many pictures go through the model together, at most.")
    settings: dict[str, Any]
    limits: ServedLimits


class ModelList(BaseModel):
    """What is served, and by which version."""

    version: str
    models: list[ServedModel]


class Health(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


class LabelStudioHealth(BaseModel):
    """As Label Studio wants it."""

    model_config = ConfigDict(protected_namespaces=())

    status: Literal["UP"]
    model_class: str


class LabelStudioVersion(BaseModel):
    """Which model predicts."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str


class LabelStudioSetup(BaseModel):
    """A project that is connected. Host names and tokens in it are not used."""

    model_config = ConfigDict(extra="allow")

    schema_: str | None = Field(None, alias="schema", max_length=1_000_000, description="Its labelling configuration.")


class LabelStudioTask(BaseModel):
    """A picture to predict for."""

    model_config = ConfigDict(extra="allow")

    id: int | str | None = None
    data: dict[str, Any]


class LabelStudioPredict(BaseModel):
    """Tasks, and the labelling configuration that has the classes."""

    model_config = ConfigDict(extra="allow")

    tasks: list[LabelStudioTask] = Field(min_length=1)
    label_config: str = Field(max_length=1_000_000)


class LabelStudioResults(BaseModel):
    """A prediction for each task, in their order; or one for many: then each is to be asked for by itself."""

    results: list[dict[str, Any]]
