"""``cliper export``: a checkpoint as graphs for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cliper.cli.errors import is_quiet
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import message_options, method_options, read_settings
from cliper.errors import SettingsError

__all__ = ["export"]

_EXAMPLES = """\
cliper export onnx exported
cliper export openvino exported --precision int8
cliper export onnx exported --refiner self --shape 336x448 --precision float16"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("target", type=click.Choice(["onnx", "openvino"]))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@option_group(
    "Export",
    option(
        "--precision",
        "Number format of the stored weights; graphs compute in float32.",
        type=click.Choice(["float32", "float16", "int8"]),
        default="float32",
    ),
    option(
        "--shape HxW",
        "Height and width in pixels of all images, multiples of the patch size.",
        show_default="any, as --size says",
    ),
)
@method_options
@message_options
def export(target: str, out: Path, precision: str, shape: str | None, **options: Any) -> int:
    """Export a checkpoint to run without PyTorch.

    Writes two graphs to the new folder OUT: texts to embeddings, and an image with embeddings to class maps. The format
    is onnx (for ONNX Runtime, also in a browser) or openvino. Text embeddings are an input of the second graph,
    so that an export knows as many words as its checkpoint. The folder also has the tokenizer, and config.json with
    what a program without cliper needs. Needs the extra export.
    """
    from cliper.export import export_model

    options |= {"device": "cpu", "dtype": None}
    refiner = None if options["refiner"] == "none" else options["refiner"]
    settings, size = read_settings(options), None if shape is None else _read_shape(shape)
    export_model(
        out, options["model"], target=target, settings=settings, refiner=refiner, shape=size, precision=precision
    )
    if not is_quiet():
        files = sorted(out.iterdir())
        size_mb = sum(file.stat().st_size for file in files) / 1e6
        click.echo(f"wrote {out}: {', '.join(file.name for file in files)}; {size_mb:.0f} MB")
    return 0


def _read_shape(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise SettingsError(f"--shape: expected HEIGHTxWIDTH, such as 336x448, got {text!r}") from None
    return height, width
