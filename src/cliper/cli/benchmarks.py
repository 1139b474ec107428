"""``cliper benchmarks``: the published settings, and the numbers that they gave."""

from __future__ import annotations

import json

import click

from cliper.settings import load_preset, presets

__all__ = ["benchmarks"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything, settings too, as JSON, one line a preset.")
def benchmarks(as_json: bool) -> None:
    """List the published settings with their published mIoU, in percent.

    Those of the preprint also have the mIoU that the published code logged; its table is up to 0.15 above that.

    Any of them is run by: cliper evaluate NAME --data ROOT
    """
    if as_json:
        for name in presets():
            preset = load_preset(name)
            line = {
                "name": name,
                "model": preset.model,
                "benchmark": preset.benchmark,
                "refiner": preset.refiner,
                "published": dict(preset.published),
                "settings": preset.settings.to_dict(),
            }
            click.echo(json.dumps(line))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("preset", "model", "refiner"):
        table.add_column(title)
    columns = (("mIoU", "miou", 1), ("no refiner", "miou_unrefined", 1), ("logged", "miou_logged", 3))
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    for name in presets():
        preset = load_preset(name)
        cells = [f"{preset.published[key]:.{digits}f}" if key in preset.published else "" for _, key, digits in columns]
        table.add_row(name, preset.model, preset.refiner, *cells)
    Console(highlight=False, soft_wrap=True).print(table)
