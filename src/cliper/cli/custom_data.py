"""What ``cliper evaluate`` and ``cliper tune`` share: a person's own images and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cliper.cli.help import option, option_group
from cliper.cli.options import (
    background_option,
    classes_file_option,
    read_background,
    read_class_options,
    read_settings,
)
from cliper.errors import InputError
from cliper.settings import load_words

if TYPE_CHECKING:
    from cliper.datasets import Benchmark
    from cliper.settings import Settings

__all__ = ["CUSTOM_DATA_OPTIONS", "custom_data_options", "read_benchmark_settings", "read_custom_data"]

CUSTOM_DATA_OPTIONS = ("images", "masks", "classes_file", "background_names", "first_label", "ignore")

F = TypeVar("F", bound=Callable[..., Any])


def custom_data_options(heading: str) -> Callable[[F], F]:
    """Add the options :data:`CUSTOM_DATA_OPTIONS` under a heading."""
    return option_group(
        heading,
        option("--images FOLDER", "Folder of images."),
        option("--masks FOLDER", "Folder of masks: PNG, with the names of the images."),
        classes_file_option,
        background_option,
        option("--first-label", "Value of the first class in the masks.", type=click.Choice(["0", "1"]), default="1"),
        option(
            "--ignore N", "Value in the masks that is not counted; repeat for more.", multiple=True, show_default="255"
        ),
    )


def read_custom_data(options: dict[str, Any]) -> Benchmark:
    """The images and masks of the options; classes and background may come from the file of ``--settings``.

    Raises:
        CliperError: a folder or the classes are missing, or cannot be used.
    """
    from cliper.datasets import custom_benchmark

    has_classes = options["classes_file"] is not None or load_words(options["settings"]).classes is not None
    for name, found in (
        ("images", options["images"] is not None),
        ("masks", options["masks"] is not None),
        ("classes-file", has_classes),
    ):
        if not found:
            raise InputError(
                f"--{name}: expected it, got none; your own data needs --images, --masks and --classes-file"
            )
    classes = read_class_options((), options["classes_file"], options["settings"])
    return custom_benchmark(
        options["images"],
        options["masks"],
        classes,
        background=read_background(options["background_names"], options["settings"]) or (),
        ignore=options["ignore"] or None,
        offset=1 if options["first_label"] == "0" else 0,
    )


def read_benchmark_settings(options: dict[str, Any], benchmark: Benchmark) -> Settings:
    """Settings from the model options; without ``--settings``, changed for a benchmark that has no background class.

    There no class is ever off, and only values near 0 are background. The published settings of VOC20 and Cityscapes
    do the same.
    """
    settings = read_settings(options)
    if options["settings"] is not None or 0 not in benchmark.ignore:
        return settings
    changes: dict[str, Any] = {"score_threshold": 0.0, "background_threshold": 1e-4}
    return settings.replace(**{name: value for name, value in changes.items() if options[name] is None})
