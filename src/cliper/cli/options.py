"""Options that several commands share: what to look for, with which model, and every setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cliper.errors import ClassListError, SettingsError
from cliper.settings import (
    ATTENTIONS,
    RECIPES,
    REFINE_MODES,
    RESIZE_MODES,
    Settings,
    check_seed,
    load_preset,
    load_settings,
    presets,
)

if TYPE_CHECKING:
    from cliper.prompts import ClassPrompt
    from cliper.segmenter import Segmenter

__all__ = ["class_options", "load_segmenter", "model_options", "read_background", "read_class_options", "read_settings"]

F = TypeVar("F", bound=Callable[..., Any])

# Setting -> (flag, what click needs to know of it). Names that say "background" alone are the texts'.
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "recipe": ("--recipe", {"type": click.Choice(RECIPES), "help": "Published version of the method."}),
    "size": ("--size", {"type": int, "help": "Short side of the resized picture, in pixels."}),
    "scale": ("--scale", {"type": float, "help": "Multiplies the cosine before the softmax."}),
    "threshold": ("--threshold", {"type": float, "help": "Share of a class's maximum that is kept."}),
    "select_layer": ("--select-layer", {"type": int, "help": "Layer whose scores become maps; -1 is last."}),
    "window": ("--window", {"type": int, "help": "Side of the sliding windows in pixels; 0 for none."}),
    "attention": (
        "--attention",
        {"type": click.Choice(ATTENTIONS), "help": "Last-layer attention, or an ablation; proxy attends by a DINO."},
    ),
    "proxy_model": ("--proxy-model", {"type": str, "help": "The DINO for --attention proxy: a name or a folder."}),
    "fuse_features": (
        "--fuse-features/--no-fuse-features",
        {"default": None, "help": "Whether the mean over layers is added."},
    ),
    "score": ("--score", {"type": float, "help": "Classes not above this confidence are off."}),
    "background": (
        "--background-threshold",
        {"type": float, "help": "Pixels below this are background; 0 lets background compete."},
    ),
    "normalize": (
        "--normalize/--no-normalize",
        {"default": None, "help": "Whether maps are stretched to [0, 1] first."},
    ),
    "templates": ("--templates", {"type": str, "help": "Text templates: scene15 or imagenet80."}),
    "refine_threshold": (
        "--refine-threshold",
        {"type": float, "help": "Threshold of the refiner's maps; by default as --threshold."},
    ),
    "refine_mode": (
        "--refine-mode",
        {"type": click.Choice(REFINE_MODES), "help": "How the refiner's maps are used."},
    ),
    "refine_map": ("--refine-map", {"type": int, "help": "Which map, for --refine-mode selected."}),
    "refine_layers": (
        "--refine-layer",
        {"type": str, "multiple": True, "help": "A self-attention layer of the refiner; repeat for more."},
    ),
    "refine_size": (
        "--refine-size",
        {"type": str, "metavar": "SIDE|HxW", "help": "Size of the refiner's input, in pixels."},
    ),
    "refine_max_patches": (
        "--refine-max-patches",
        {
            "type": int,
            "help": "Most patches that a DINO refiner or self uses; larger images are reduced.",
        },
    ),
    "refine_resize": (
        "--refine-resize",
        {"type": click.Choice(RESIZE_MODES), "help": "How the image is resized for the refiner; by default its own."},
    ),
    "refine_step": ("--refine-step", {"type": int, "help": "Denoising step, of 50."}),
}


def class_options(command: F) -> F:
    """Add ``--classes``, ``--classes-file`` and ``--background``."""
    for option in (
        click.option(
            "-b",
            "--background",
            "background_names",
            multiple=True,
            help='Names of what is not asked for: "wall; sky", "auto" (default: common scene words) or "none".',
        ),
        click.option(
            "--classes-file",
            type=click.Path(path_type=Path),
            help="File with one class a line: 'name' or 'name: prompt, other prompt'.",
        ),
        click.option(
            "-c",
            "--classes",
            multiple=True,
            help='What to look for: "dog; grass; wooden bench". May be repeated.',
        ),
    ):
        command = option(command)
    return command


def model_options(command: F) -> F:
    """Add model, refiner, settings, every single setting, device, dtype and seed."""
    options = [
        click.option(
            "-m",
            "--model",
            default="mini",
            show_default=True,
            help="mini, ViT-B/16, ViT-L/14, ViT-H/14, a hub name or a folder.",
        ),
        click.option("-r", "--refiner", default=None, help="none (default), or what sharpens the maps."),
        click.option(
            "-s",
            "--settings",
            default=None,
            help="A preset (vit-b-16/voc21) or a YAML file; flags go above it.",
        ),
        *(click.option(flag, name, **more) for name, (flag, more) in _SETTINGS.items()),
        click.option("--device", default=None, help="cpu, cuda, cuda:1 ...; by default CUDA if there is any."),
        click.option("--dtype", default=None, help="float32 (default), float16 or bfloat16."),
        click.option("--seed", default=0, show_default=True, help="Of the refiner's noise."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load_segmenter(options: dict[str, Any]) -> Segmenter:
    """Make the segmenter that the model options describe: preset < file < flag.

    Raises:
        CliperError: whatever :meth:`cliper.Segmenter.from_pretrained` raises.
    """
    from cliper.segmenter import Segmenter

    settings = read_settings(options)
    refiner = options["refiner"]
    return Segmenter.from_pretrained(
        options["model"],
        refiner=None if refiner in (None, "none") else refiner,
        settings=settings,
        device=options["device"],
        dtype=options["dtype"],
        seed=options["seed"],
    )


def read_settings(options: dict[str, Any], base: Settings | None = None) -> Settings:
    """The settings that the model options describe: recommended < preset < file < flag.

    What can be wrong is looked at before anything large is fetched or loaded.

    Args:
        options: as :func:`model_options` gives them.
        base: in place of those recommended for the model.

    Raises:
        CliperError: an option that cannot be used; a model that cannot be fetched.
    """
    from cliper.checkpoints import recommended_settings, resolve
    from cliper.devices import pick_device, pick_dtype
    from cliper.refiners import check_proxy, check_refiner

    pick_device(options["device"])
    pick_dtype(options["dtype"])
    check_seed(options["seed"])
    check_refiner(options["refiner"] or "none")
    named, changes = options["settings"], _changes(options)
    if named in presets() and load_preset(named).model.casefold() != str(options["model"]).casefold():
        click.echo(
            f"cliper: warning: preset {named} was published for {load_preset(named).model}, the model is "
            f"{options['model']}",
            err=True,
        )
    first = base or Settings()
    tried = (first if named is None else load_settings(named, base=first)).replace(origin="command line", **changes)
    check_proxy(tried)
    if base is None:
        base = recommended_settings(resolve(options["model"], "clip"))
    chosen = base if named is None else load_settings(named, base=base)
    return chosen.replace(origin="command line", **changes)


def read_class_options(classes: tuple[str, ...], file: Path | None) -> list[ClassPrompt]:
    """The class list that ``--classes`` and ``--classes-file`` give together.

    Raises:
        ClassListError: no classes, or a list that cannot be used.
    """
    from cliper.prompts import parse_classes, read_classes

    if not classes and file is None:
        raise ClassListError('expected classes, got none; name them: -c "dog; grass", or --classes-file FILE')
    given = [] if file is None else list(read_classes(file))
    named = parse_classes([*classes, *given])
    if file is None and len(named) == 1 and "," in named[0].name:
        click.echo(f"cliper: warning: {named[0].name!r} is one class; classes are separated by semicolons", err=True)
    return named


def read_background(names: tuple[str, ...]) -> str | list[ClassPrompt] | None:
    """What ``--background`` says: ``"auto"``, None for ``none``, or names.

    Raises:
        ClassListError: a list that cannot be used, or ``auto`` or ``none`` beside names.
    """
    from cliper.prompts import parse_classes

    words = [name.strip().lower() for name in names]
    if not words or words == ["auto"]:
        return "auto"
    if words == ["none"]:
        return None
    if "auto" in words or "none" in words:
        raise ClassListError("--background: expected auto or none alone, or names; got both")
    return parse_classes(names, what="background name")


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    given = {name: options[name] for name in _SETTINGS if options[name] not in (None, ())}
    if "refine_size" in given:
        try:
            sides = [int(side) for side in given["refine_size"].lower().split("x")]
        except ValueError:
            raise SettingsError(
                f"--refine-size: expected a side or HEIGHTxWIDTH, got {given['refine_size']!r}"
            ) from None
        given["refine_size"] = sides[0] if len(sides) == 1 else tuple(sides)
    return given
