"""Settings of the method as a frozen, validated object, and the published presets.

Precedence, lowest first: a preset or the checkpoint's recommended settings, a file, a flag.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cliper.errors import SettingsError
from cliper.setting_checks import (
    check_bool,
    check_choice,
    check_float,
    check_int,
    check_model,
    check_names,
    check_size,
    check_sizes,
    check_templates,
)
from cliper.settings_file import SettingsFile, read_settings_file

__all__ = [
    "ATTENTIONS",
    "PROPAGATIONS",
    "RECIPES",
    "SYNONYM_MERGES",
    "TEMPLATES",
    "Preset",
    "Settings",
    "load_preset",
    "load_settings",
    "load_words",
    "presets",
    "setting_limits",
]

RECIPES = ("conference", "preprint", "preprint-h")
ATTENTIONS = ("fused", "vanilla", "q-q", "k-k", "v-v", "identity", "proxy")
TEMPLATES = ("imagenet80", "scene15")
SYNONYM_MERGES = ("mean", "logsumexp")
REFINE_MODES = ("chain", "mean", "selected")
RESIZE_MODES = ("nearest", "bilinear", "bicubic", "area")
PROPAGATIONS = ("product", "solve")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one run. The defaults are those published for ViT-B/16 on VOC with background.

    Args:
        recipe: ``"conference"``, ``"preprint"`` (for ViT-H/14 the same as ``"preprint-h"``) or ``"preprint-h"`` (the
            preprint's variant for ViT-H/14). ``docs/method.md``, section 2.
        size: short side of the resized image in pixels; both sides become multiples of the patch size.
        logit_scale: multiplies the cosine of patch and text before the softmax over texts.
        map_threshold: share of a class's own maximum below which the selected layer's map is set to 0.
        select_layer: the layer whose scores become the class maps; -1 is the last.
        extra_sizes: further short sides at which the image is encoded; the class maps of all sizes are averaged.
        flip: whether the mirror image is encoded too, and its class maps are averaged with those of the image.
        window: side of the sliding windows in pixels (stride 112); 0 means no windows.
        window_context: whether each window attends to all windows of the image. ``docs/method.md``, section 2.
        attention: the last layer's attention: ``"fused"``, one of the ablations, or ``"proxy"``, a DINO's affinity.
        proxy_model: the DINO for ``attention="proxy"``: an alias, a hub name or a folder.
        fuse_features: whether the mean over all layers' scores is added to the selected layer's maps.
        class_top: number of classes that an image is searched for, those that fit the whole image best; 0 means all.
        class_min_score: classes that fit the whole image less than this share of the best one are left out.
        score_threshold: classes whose confidence is not above this get no pixel.
        background_threshold: value below which a pixel is background; 0 lets background compete as ``(1 - max) ** 2``.
        sensitivity: moves both thresholds together, see :meth:`thresholds`; above 0.5 more is found, below it less.
        background_similarity: with ``background="auto"``, cosine to a class from which a background name is dropped.
        background_count: with ``background="auto"``, how many names are chosen from the lexicon for the classes; 0
            takes a fixed list of scene words.
        normalize: whether each class map is stretched to [0, 1] before labels are assigned.
        templates: name of a built-in list of text templates, or the templates themselves, each with one ``{}``.
        merge_synonyms: a class of several prompts has the ``"mean"`` of their embeddings, or the ``"logsumexp"`` of
            their scores.
        refine_threshold: threshold of the self-attention maps; None takes ``map_threshold``.
        refine_mode: ``"chain"``, ``"mean"`` or ``"selected"`` (only the map ``refine_map_index``).
        refine_map_index: index of the self-attention map for ``"selected"``.
        refine_layers: names of the refiner's self-attention layers, or of its blocks, which mean all layers in them;
            None takes the refiner's default.
        refine_size: side, or (height, width), in pixels of the refiner's input; None takes the refiner's default.
        refine_max_patches: if ``refine_size`` is None, larger images are reduced to at most this many patches for a
            DINO refiner or ``self``; None takes the refiner's default: no limit for DINO, 4096 for ``self``.
        refine_resize: interpolation of the image for the refiner; None takes the published one, ``"nearest"`` for
            Stable Diffusion and ``"bilinear"`` for DINO. ``self`` ignores it.
        refine_step: index of the denoising step, of 50.
        refine_noise: whether noise is added to the latents (Stable Diffusion only).
        refine_balance: number of rounds that make each attention map doubly stochastic; 0 means none.
        refine_vae: the VAE of Stable Diffusion: ``"full"``, its own, or a tiny one: ``"taesd"``, or a folder.
        refine_propagation: how DINO refiners and ``self`` apply affinities: ``"product"``, once, as published, or
            ``"solve"``, label propagation over nearest neighbours. ``docs/method.md``, section 3, "Label propagation".
        refine_neighbors: number of nearest neighbours of a patch for ``"solve"``.
        refine_alpha: how far ``"solve"`` spreads class maps; 0 leaves them as they are.
        edge_weight: weight of the edge-aware smoothing of class maps, after any refiner or none; 0 means none.
            ``docs/method.md``, section 3, "Edge-aware smoothing".
        edge_sigma: the colour difference, of channels in [0, 1], that is an edge for it.

    Raises:
        SettingsError: a value has the wrong type or is out of range.

    Example:
        >>> Settings(size=448).replace(logit_scale=50).logit_scale
        50.0
    """

    recipe: str = "conference"
    size: int = 336
    logit_scale: float = 100.0
    map_threshold: float = 0.1
    select_layer: int = -1
    extra_sizes: tuple[int, ...] = ()
    flip: bool = False
    window: int = 0
    window_context: bool = False
    attention: str = "fused"
    proxy_model: str = "dino-b8"
    fuse_features: bool = True
    class_top: int = 0
    class_min_score: float = 0.0
    score_threshold: float = 0.7
    background_threshold: float = 0.6
    sensitivity: float = 0.5
    background_similarity: float = 0.9
    background_count: int = 0
    normalize: bool = True
    templates: str | tuple[str, ...] = "scene15"
    merge_synonyms: str = "mean"
    refine_threshold: float | None = None
    refine_mode: str = "chain"
    refine_map_index: int = 0
    refine_layers: tuple[str, ...] | None = None
    refine_size: int | tuple[int, int] | None = None
    refine_max_patches: int | None = None
    refine_resize: str | None = None
    refine_step: int = 45
    refine_noise: bool = True
    refine_balance: int = 0
    refine_vae: str = "full"
    refine_propagation: str = "product"
    refine_neighbors: int = 400
    refine_alpha: float = 0.95
    edge_weight: float = 0.0
    edge_sigma: float = 0.1

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is not None or item.default is not None:
                check, *limits = _CHECKS[item.name]
                object.__setattr__(self, item.name, check(item.name, value, *limits))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, origin: str = "settings") -> Settings:
        """Settings from a mapping, such as a parsed file; settings that it does not name keep their defaults.

        Raises:
            SettingsError: an unknown key (the message suggests the closest one), a value of the wrong type or out of
                range.
        """
        return cls()._changed(values, origin)

    def replace(self, *, origin: str = "settings", **changes: Any) -> Settings:
        """A copy with some values changed.

        Raises:
            SettingsError: as for :meth:`from_mapping`.
        """
        return self._changed(changes, origin)

    def _changed(self, changes: Mapping[str, Any], origin: str, others: tuple[str, ...] = ()) -> Settings:
        # A mapping, not keywords: a file may have a key "origin" or "self".
        known = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(str(name), [*known, *others], n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
                raise SettingsError(f"{origin}: unknown setting {name!r}; {hint}")
        try:
            return dataclasses.replace(self, **changes)
        except SettingsError as error:
            raise SettingsError(f"{origin}: {error}") from None

    @property
    def chooses_classes(self) -> bool:
        """Whether an image is searched only for classes that fit the whole image."""
        return self.class_top > 0 or self.class_min_score > 0

    def thresholds(self) -> tuple[float, float]:
        """``score_threshold`` and ``background_threshold``, moved by ``sensitivity`` s.

        A threshold t that is not 0 becomes ``1 - 2 s (1 - t)`` for s <= 0.5, else ``max(0.001, 2 t (1 - s))``: 1 at 0,
        t at 0.5, and near 0 at 1 (0 would mean that background competes).

        Example:
            >>> Settings(score_threshold=0.8, background_threshold=0, sensitivity=0.75).thresholds()
            (0.4, 0.0)
        """
        return _moved(self.score_threshold, self.sensitivity), _moved(self.background_threshold, self.sensitivity)

    def sensitivity_for(self, confidence: float) -> float | None:
        """The smallest sensitivity, in steps of 0.01, at which a class of this confidence is on; None if there is none.

        Example:
            >>> Settings(score_threshold=0.6).sensitivity_for(0.52)
            0.57
        """
        steps = (step / 100 for step in range(101))
        return next((s for s in steps if confidence > _moved(self.score_threshold, s)), None)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values that YAML and JSON can hold; :meth:`from_mapping` reads them back."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@dataclass(frozen=True)
class Preset:
    """A row of the published tables.

    Args:
        name: such as ``"vit-b-16/voc21-windows"``.
        model: alias of the CLIP checkpoint.
        benchmark: name of the benchmark.
        refiner: the refiner that the published number was measured with.
        settings: the published settings.
        published: mIoU in percent; empty if none was published. ``"miou"`` is the table's, ``"miou_unrefined"`` the
            table's without the refiner, ``"miou_logged"`` that of the published code's log (preprint only).
    """

    name: str
    model: str
    benchmark: str
    refiner: str
    settings: Settings
    published: Mapping[str, float] = field(default_factory=dict)


def presets() -> list[str]:
    """Names of all presets, sorted.

    Example:
        >>> "vit-b-16/voc21" in presets()
        True
    """
    root = resources.files("cliper") / "presets"
    return sorted(
        f"{folder.name}/{file.name.removesuffix('.yaml')}"
        for folder in root.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    )


def load_preset(name: str) -> Preset:
    """Load a preset by its name.

    Raises:
        SettingsError: there is no such preset; the message suggests the closest ones.

    Example:
        >>> load_preset("vit-l-14/voc21").published["miou"]
        71.6
    """
    known = presets()
    if name not in known:
        same_benchmark = [preset for preset in known if preset.partition("/")[2] == name]
        near = same_benchmark or difflib.get_close_matches(name, known, n=3) or known[:3]
        raise SettingsError(f"no preset is called {name!r}; near it: {', '.join(near)}")
    folder, _, stem = name.partition("/")
    text = (resources.files("cliper") / "presets" / folder / f"{stem}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    settings = Settings.from_mapping(data.pop("settings"), origin=f"preset {name!r}")
    return Preset(name=name, settings=settings, **data)


def load_settings(source: str | Path | Settings, *, base: Settings | None = None) -> Settings:
    """Settings from a preset's name, a YAML or JSON file, or :class:`Settings`, which are returned unchanged.

    A file changes only the settings that it names; the others come from ``base`` (default: ``Settings()``). A preset
    is complete and ignores ``base``. Classes and background names of a file are ignored; :func:`load_words` reads them.

    Raises:
        SettingsError: no such preset or file, a file that is too large or cannot be parsed, an unknown key, or a value
            of the wrong type or out of range.
    """
    if isinstance(source, Settings):
        return source
    if not isinstance(source, str | Path):
        raise SettingsError(f"settings: expected Settings, a preset's name or a file, got {type(source).__name__}")
    path = _settings_path(source)
    if path is None:
        return load_preset(str(source)).settings
    return (base or Settings())._changed(read_settings_file(path).settings, str(path), ("classes", "background"))


def load_words(source: str | Path | None) -> SettingsFile:
    """The content of a settings file, whose classes and background names are defaults of a command line.

    Args:
        source: as for :func:`load_settings`; a preset, and None, have no classes and no background names.

    Raises:
        SettingsError: as for :func:`load_settings`; values of settings are not checked.
    """
    path = None if source is None else _settings_path(source)
    return SettingsFile({}) if path is None else read_settings_file(path)


def _settings_path(source: str | Path) -> Path | None:
    """The path of a settings file; None if ``source`` names a preset. Raises SettingsError if it is neither."""
    text = str(source)
    if text in presets():
        return None
    try:
        path = Path(text).expanduser()
        found = path.is_file()
    except (OSError, RuntimeError):  # a name that is too long, a home folder that does not exist
        path, found = Path(text), False
    if not found:
        if path.suffix.lower() in {".yaml", ".yml", ".json"}:
            raise SettingsError(f"settings file {text!r} does not exist; give a file or a preset's name")
        load_preset(text)  # raises an error that suggests the closest presets
    return path


def setting_limits(name: str) -> tuple[Any, ...]:
    """Limits of a setting: ``(choices,)``, or its lowest and highest value; empty if it has none.

    Example:
        >>> setting_limits("size"), setting_limits("templates")
        ((1, 4096), (('imagenet80', 'scene15'),))
    """
    return _CHECKS[name][1:]


def _moved(threshold: float, sensitivity: float) -> float:
    if threshold == 0 or sensitivity == 0.5:
        return threshold
    if sensitivity < 0.5:
        return 1 - 2 * sensitivity * (1 - threshold)
    return max(0.001, 2 * threshold * (1 - sensitivity))


# Field -> its check and the arguments of the check. A field whose default is None may be None.
_CHECKS: dict[str, tuple[Any, ...]] = {
    "recipe": (check_choice, RECIPES),
    "size": (check_int, 1, 4096),
    "logit_scale": (check_float, 0.0, 1e4),
    "map_threshold": (check_float, 0.0, 1.0),
    "select_layer": (check_int, -1000, 999),
    "extra_sizes": (check_sizes, 1, 4096),
    "flip": (check_bool,),
    "window": (check_int, 0, 4096),
    "window_context": (check_bool,),
    "attention": (check_choice, ATTENTIONS),
    "proxy_model": (check_model,),
    "fuse_features": (check_bool,),
    "class_top": (check_int, 0, 10_000),
    "class_min_score": (check_float, 0.0, 1.0),
    "score_threshold": (check_float, 0.0, 1.0),
    "background_threshold": (check_float, 0.0, 1.0),
    "sensitivity": (check_float, 0.0, 1.0),
    "background_similarity": (check_float, 0.0, 1.0),
    "background_count": (check_int, 0, 1000),
    "normalize": (check_bool,),
    "templates": (check_templates, TEMPLATES),
    "merge_synonyms": (check_choice, SYNONYM_MERGES),
    "refine_threshold": (check_float, 0.0, 1.0),
    "refine_mode": (check_choice, REFINE_MODES),
    "refine_map_index": (check_int, 0, 10_000),
    "refine_layers": (check_names,),
    "refine_size": (check_size, 64, 2048),
    "refine_max_patches": (check_int, 1, 1_000_000),
    "refine_resize": (check_choice, RESIZE_MODES),
    "refine_step": (check_int, 0, 49),
    "refine_noise": (check_bool,),
    "refine_balance": (check_int, 0, 100),
    "refine_vae": (check_model,),
    "refine_propagation": (check_choice, PROPAGATIONS),
    "refine_neighbors": (check_int, 1, 100_000),
    "refine_alpha": (check_float, 0.0, 0.999),
    "edge_weight": (check_float, 0.0, 1e6),
    "edge_sigma": (check_float, 1e-3, 10.0),
}
