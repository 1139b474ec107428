"""Options that several commands share: classes, model, every setting of the method, and where to run."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cliper.cli.completion import complete_presets, complete_refiners, complete_vaes
from cliper.cli.errors import echo_warning, is_quiet
from cliper.cli.help import option, option_group
from cliper.cli.model_name import activation_option, model_option
from cliper.errors import ClassListError, OutputError, SettingsError
from cliper.setting_checks import check_seed
from cliper.settings import (
    ATTENTIONS,
    PROPAGATIONS,
    RECIPES,
    REFINE_MODES,
    RESIZE_MODES,
    SYNONYM_MERGES,
    TEMPLATES,
    Settings,
    load_preset,
    load_settings,
    load_words,
    presets,
)

if TYPE_CHECKING:
    from cliper.checkpoints import ResolvedCheckpoint
    from cliper.encoders.base import Encoder
    from cliper.prompts import ClassPrompt
    from cliper.segmenter import Segmenter

__all__ = [
    "background_option",
    "check_out_folder",
    "class_options",
    "classes_file_option",
    "echo_notes",
    "label_mode_option",
    "load_segmenter",
    "message_options",
    "method_options",
    "model_options",
    "read_background",
    "read_class_options",
    "read_settings",
]


F = TypeVar("F", bound=Callable[..., Any])

classes_file_option = option(
    "--classes-file FILE", "Text file with one class per line: 'name' or 'name: word, other word'."
)
background_option = option(
    "-b, --background NAMES",
    'Names of what else is in the images, competing with the classes: "wall; sky", auto (common scene words) or none.',
    "background_names",
    multiple=True,
    show_default="that of --settings, else auto",
)

label_mode_option = option(
    "--label-mode",
    "Label maps as PNGs with a palette, or grey, for readers that turn a palette into colours (OpenCV).",
    type=click.Choice(["palette", "grey"]),
    default="palette",
)

class_options = option_group(
    "Classes",
    option(
        "-c, --classes NAMES",
        'Classes to find: "dog; cat; person: man, woman". After a colon: the words that describe the class, in place '
        "of its name. Repeat for more classes.",
        multiple=True,
    ),
    classes_file_option,
    background_option,
)
"""``--classes``, ``--classes-file`` and ``--background``."""

_MODEL = option_group(
    "Model",
    model_option,
    activation_option,
    option(
        "-r, --refiner NAME",
        "Refinement of the class maps: none, self (no download), Stable Diffusion (sd2.1, sd1.5, sd1.4, sdxl), DINO "
        "(dino-s16, dino-s8, dino-b16, dino-b8, dinov2-s14, dinov2-b14, dinov2-l14, dinov2-g14, dinov3-s16, "
        "dinov3-b16, dinov3-l16), a Hugging Face repository or a folder.",
        default="none",
        shell_complete=complete_refiners,
    ),
    option(
        "-s, --settings NAME|FILE",
        "Settings of the method: a preset (vit-b-16/voc21; see 'cliper benchmarks') or a YAML file, which may also "
        "hold classes and background. Other options take precedence.",
        show_default="recommended for the model",
        shell_complete=complete_presets,
    ),
)

# The name of an option, or the name that is given after the help text, is the field of Settings.
_METHOD = option_group(
    "Method (default: from --settings)",
    option("--recipe", "Published version of the method.", type=click.Choice(RECIPES)),
    option("--size PIXELS", "Length to which the shorter side of the image is resized."),
    option(
        "--extra-size PIXELS",
        "Further length of the shorter side, whose class maps are averaged with those of --size; repeat for more.",
        "extra_sizes",
        multiple=True,
    ),
    option("--flip/--no-flip", "Average the class maps with those of the mirror image.", default=None),
    option("--window PIXELS", "Side of the sliding windows; 0 for none."),
    option("--window-context/--no-window-context", "Let each window of --window attend to all windows.", default=None),
    option(
        "--attention",
        "Attention in the image encoder's last layer: fused is the method, proxy the affinity of a DINO; the others "
        "are for comparison.",
        type=click.Choice(ATTENTIONS),
    ),
    option("--proxy-model NAME", "DINO for --attention proxy: a name such as dino-b8, or a folder."),
    option("--select-layer INDEX", "Layer of the image encoder that the class maps come from; -1 is the last."),
    option("--fuse-features/--no-fuse-features", "Add the mean over all layers to the class maps.", default=None),
    option("--logit-scale X", "Factor on the similarities of image and text before the softmax over classes."),
    option("--map-threshold X", "Share of a class map's maximum below which the map is set to 0."),
    option("--class-top N", "Look only for the N classes that fit the whole image best; 0 for all."),
    option("--class-min-score X", "Look only for classes that fit the whole image at least this share of the best."),
    option("--score-threshold X", "Confidence that a class must exceed to be in the result."),
    option(
        "--background-threshold X",
        "Score below which a pixel is background; 0 compares the classes with (1 - highest score)^2.",
    ),
    option(
        "--background-similarity X",
        "With --background auto: similarity to a class from which a background word is left out.",
    ),
    option(
        "--background-count N",
        "With --background auto: number of background words to choose for the classes; 0 takes a fixed list.",
    ),
    option("--sensitivity X", "Find more (towards 1) or less (towards 0): moves both thresholds; 0.5 leaves them."),
    option("--normalize/--no-normalize", "Stretch class maps to [0, 1] before labels are assigned.", default=None),
    option("--templates", "Text templates: sentences that class names are put into.", type=click.Choice(TEMPLATES)),
    option(
        "--merge-synonyms",
        "Several words for a class: take the mean of their embeddings, or the log-sum-exp of their scores.",
        type=click.Choice(SYNONYM_MERGES),
    ),
)

_REFINER = option_group(
    "Refiner (default: from --settings)",
    option(
        "--refine-threshold X",
        "Share of an attention map's maximum below which the map is set to 0.",
        show_default="--map-threshold",
    ),
    option(
        "--refine-mode",
        "Apply the attention maps one after another (chain), their mean, or only one (selected).",
        type=click.Choice(REFINE_MODES),
    ),
    option("--refine-map-index INDEX", "Attention map for --refine-mode selected."),
    option(
        "--refine-layer NAME",
        "Self-attention layer of the refiner's network, or a block of layers such as up_blocks.3; repeat for more.",
        "refine_layers",
        multiple=True,
    ),
    option("--refine-size SIDE|HxW", "Size in pixels to which the image is resized for the refiner."),
    option(
        "--refine-max-patches N", "Maximum number of patches for DINO refiners and self; larger images are reduced."
    ),
    option(
        "--refine-resize",
        "How the image is resized for the refiner.",
        type=click.Choice(RESIZE_MODES),
        show_default="the refiner's own",
    ),
    option("--refine-step INDEX", "Denoising step, 0 to 49, that sets the noise (Stable Diffusion only)."),
    option(
        "--refine-propagation",
        "How DINO refiners and self apply affinities: one product, or solve, over nearest neighbours to the end.",
        type=click.Choice(PROPAGATIONS),
    ),
    option("--refine-neighbors N", "Number of nearest neighbours of a patch for --refine-propagation solve."),
    option("--refine-alpha X", "How far --refine-propagation solve spreads class maps, 0 to below 1."),
    option(
        "--edge-weight X", "Weight of the edge-aware smoothing of class maps, after any refiner or none; 0 for none."
    ),
    option("--edge-sigma X", "Colour difference, of channels in [0, 1], that is an edge for --edge-weight."),
    option("--refine-noise/--no-refine-noise", "Add noise to the latents (Stable Diffusion only).", default=None),
    option("--refine-balance N", "Rounds that make attention maps doubly stochastic (Stable Diffusion only)."),
    option(
        "--refine-vae NAME",
        "VAE of Stable Diffusion: full, its own, or a tiny one: taesd, or a folder.",
        shell_complete=complete_vaes,
    ),
    option("--seed N", "Seed of the noise (Stable Diffusion only).", default=0),
)

_DEVICE = option_group(
    "Device",
    option(
        "--device NAME",
        "Where to compute: cpu, cuda, cuda:1, mps (Apple silicon) ...",
        show_default="cuda if there is one, else cpu",
    ),
    option(
        "--dtype",
        "Number format of the networks.",
        type=click.Choice(["float32", "float16", "bfloat16"]),
        show_default="float32; refiners on a GPU float16",
    ),
)


def _set_log_level(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Set the level of the logger ``cliper``, which decides what is printed besides results."""
    if value:
        other = context.meta.setdefault("cliper.messages", parameter.name)
        if other != parameter.name:
            raise click.UsageError("expected --quiet or --verbose, got both; give one")
        logger = logging.getLogger("cliper")
        logger.setLevel(logging.ERROR if parameter.name == "quiet" else min(logger.level, logging.INFO))


_MESSAGES: dict[str, Any] = {"expose_value": False, "callback": _set_log_level}
message_options = option_group(
    "Messages",
    option("-q, --quiet", "Print errors only: no progress, notes or summaries.", **_MESSAGES),
    option("-v, --verbose", "Print what is loaded, from where, its size, and the seconds of each step.", **_MESSAGES),
)
"""``--quiet`` and ``--verbose``."""


def method_options(command: F) -> F:
    """Add model, refiner, settings, every single setting and seed."""
    return _MODEL(_METHOD(_REFINER(command)))


def model_options(command: F) -> F:
    """Add those of :func:`method_options`, device and dtype."""
    return method_options(_DEVICE(command))


def load_segmenter(options: dict[str, Any]) -> Segmenter:
    """Load the segmenter that the model options describe.

    Raises:
        CliperError: whatever :meth:`cliper.Segmenter.from_pretrained` raises.
    """
    from cliper.model_config import ModelConfig

    refiner = None if options["refiner"] == "none" else options["refiner"]
    settings = read_settings(options)
    return ModelConfig(options["model"], settings, refiner, options["device"], options["dtype"], options["seed"]).load()


def echo_notes(checkpoint: ResolvedCheckpoint, classes: Sequence[ClassPrompt], encoder: Encoder | None = None) -> None:
    """Print a note about each class that the model was not taught, to standard error; see :class:`.TaughtWords`."""
    from cliper.vocabulary import TaughtWords

    for note in [] if is_quiet() else TaughtWords(checkpoint, encoder).notes(classes):
        echo_warning(note)


def read_settings(options: dict[str, Any], base: Settings | None = None) -> Settings:
    """Settings from the model options; later ones take precedence: recommended, preset, file, option.

    Options are checked before anything is downloaded or loaded.

    Args:
        options: as :func:`model_options` gives them.
        base: in place of the settings recommended for the model.

    Raises:
        CliperError: an option that cannot be used; a model that cannot be downloaded.
    """
    from cliper.checkpoints import recommended_settings, resolve
    from cliper.devices import resolve_device, resolve_dtype
    from cliper.refiners import check_proxy, check_refiner

    resolve_device(options["device"])
    resolve_dtype(options["dtype"])
    check_seed(options["seed"])
    check_refiner(options["refiner"])
    source, changes = options["settings"], _setting_options(options)
    if source in presets() and load_preset(source).model.casefold() != str(options["model"]).casefold():
        echo_warning(f"preset {source} is for {load_preset(source).model}, the model is {options['model']}")

    def settings_on(base: Settings) -> Settings:
        loaded = base if source is None else load_settings(source, base=base)
        return loaded.replace(origin="command line", **changes)

    check_proxy(settings_on(base or Settings()))  # raises if an option is wrong, before the model is resolved
    return settings_on(base or recommended_settings(resolve(options["model"], "clip")))


def read_class_options(classes: tuple[str, ...], file: Path | None, settings: str | None = None) -> list[ClassPrompt]:
    """Class list from ``--classes`` and ``--classes-file`` together, or else from the file of ``--settings``.

    Raises:
        CliperError: no classes, or a list that cannot be used.
    """
    from cliper.prompts import parse_classes, read_classes

    if not classes and file is None:
        if (entries := load_words(settings).classes) is not None:
            return _parse_entries(settings, entries, "class")
        raise ClassListError('expected classes, got none; name them: -c "dog; cat", or --classes-file FILE')
    if file is None and len(classes) == 1 and Path(classes[0]).suffix == ".txt" and Path(classes[0]).is_file():
        echo_warning(f"reading the classes from the file {classes[0]}")
        return read_classes(classes[0])
    typed = _split_commas(classes, "classes", "a class with a comma needs --classes-file")
    return parse_classes([*typed, *([] if file is None else read_classes(file))])


def _parse_entries(settings: str | None, entries: tuple[str, ...], what: str) -> list[ClassPrompt]:
    from cliper.prompts import parse_classes

    try:
        return parse_classes(entries, what=what)
    except ClassListError as error:
        raise ClassListError(f"{settings}: {error}") from None


def _split_commas(texts: Sequence[str], what: str, hint: str) -> list[str]:
    from cliper.prompts import split_commas

    notices: list[str] = []
    entries = [entry for text in texts for entry in split_commas(text, notices.append, what=what)]
    for notice in notices:
        echo_warning(f"{notice}; {hint}")
    return entries


def read_background(
    names: tuple[str, ...], settings: str | None = None, *, origin: str = "--background"
) -> str | list[ClassPrompt] | None:
    """Value of the option ``origin``, or else of the file of ``--settings``: ``"auto"``, None for ``none``, or names.

    Raises:
        CliperError: a list that cannot be used, or ``auto`` or ``none`` beside names.
    """
    from cliper.prompts import background_keyword, parse_classes

    entries = tuple(_split_commas(names, "background names", "a name with a comma needs a file of --settings"))
    if not names:
        origin, entries = f"{settings}: background", load_words(settings).background or ("auto",)
    if len(entries) == 1 and re.fullmatch(r"[\d.]+%?", entries[0].strip(" ;")):
        raise ClassListError(
            f"{origin}: expected names of what else is in the images, got {entries[0]!r}; "
            "the threshold is --background-threshold"
        )
    if keyword := background_keyword(entries, origin):
        return "auto" if keyword == "auto" else None
    what = "background name"
    return parse_classes(entries, what=what) if names else _parse_entries(settings, entries, what)


def check_out_folder(out: Path) -> None:
    """Check, before anything is computed, that ``--out`` is or can become a folder with files.

    Raises:
        OutputError: it cannot.
    """
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"expected a folder that can be written, got {out}; choose another with --out")


def _setting_options(options: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(Settings)]
    given = {name: options[name] for name in names if options[name] not in (None, ())}
    if "refine_size" in given:
        try:
            sides = [int(side) for side in given["refine_size"].lower().split("x")]
        except ValueError:
            raise SettingsError(
                f"--refine-size: expected a side or HEIGHTxWIDTH, got {given['refine_size']!r}"
            ) from None
        given["refine_size"] = sides[0] if len(sides) == 1 else tuple(sides)
    return given
