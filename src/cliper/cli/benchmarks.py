"""``cliper benchmarks``: the published settings, and their published results."""

from __future__ import annotations

import json

import click

from cliper.cli.help import GroupedCommand
from cliper.cli.tables import print_table
from cliper.settings import load_preset, presets

__all__ = ["benchmarks"]


# Heading -> key of the published numbers, digits.
_COLUMNS = {"mIoU": ("miou", 1), "no refiner": ("miou_unrefined", 1), "logged": ("miou_logged", 3)}

_EXAMPLES = """\
cliper benchmarks
cliper evaluate vit-l-14/voc21 --data ROOT
cliper segment photo.jpg -c dog -m ViT-B/16 -s vit-b-16/voc21"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.option(
    "--json", "json_output", is_flag=True, help="Print presets with all their settings as JSON, one per line."
)
def benchmarks(json_output: bool) -> None:
    """List the published presets with their mIoU.

    A preset names a model, a refiner, a benchmark and settings. cliper evaluate measures it; --settings of other
    commands takes its settings. mIoU is in percent. Presets of the preprint also have the mIoU that the published code
    logged; the published table is up to 0.15 above it.
    """
    rows = []
    for name in presets():
        preset = load_preset(name)
        if json_output:
            line = {
                "name": name,
                "model": preset.model,
                "benchmark": preset.benchmark,
                "refiner": preset.refiner,
                "published": dict(preset.published),
                "settings": preset.settings.to_dict(),
            }
            click.echo(json.dumps(line))
        cells = (
            f"{preset.published[key]:.{digits}f}" if key in preset.published else ""
            for key, digits in _COLUMNS.values()
        )
        rows.append((name, preset.model, preset.refiner, *cells))
    if not json_output:
        print_table(("preset", "model", "refiner", *_COLUMNS), rows, numbers=_COLUMNS)
