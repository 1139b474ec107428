"""``cliper report``: tables and images from the reports of ``cliper evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from cliper.cli.errors import is_quiet
from cliper.cli.help import GroupedCommand, option, option_group
from cliper.cli.options import check_out_folder, message_options
from cliper.errors import InputError
from cliper.files import write_text

__all__ = ["report"]

_EXAMPLES = """\
cliper report result/report.json
cliper report voc/report.json ade/report.json --format latex -o table.tex
cliper report result/report.json --per-class --confusion confusion.png"""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("reports", nargs=-1, required=True, metavar="REPORT...", type=click.Path(path_type=Path))
@option_group(
    "Table",
    option(
        "-f, --format",
        "Format of the table.",
        "table_format",
        type=click.Choice(["md", "csv", "latex"]),
        default="md",
    ),
    option("--per-class", "IoU of each class, a column for each report, in place of the summary."),
    option("-o, --out FILE", "File for the table.", show_default="print it"),
)
@option_group("Image", option("--confusion FILE", "Draw the confusion matrix of the report as an image, PNG."))
@message_options
def report(
    reports: tuple[Path, ...], table_format: str, per_class: bool, out: Path | None, confusion: Path | None
) -> int:
    """Turn REPORTs of cliper evaluate into a table.

    REPORT is a report.json. Each report is a row, and so is each of its variants; numbers are in percent. In
    the image of a confusion matrix, rows are ground truth, and each row is divided by its sum.
    """
    from cliper.evaluation.report_table import TABLE_FORMATS, class_table, read_reports, summary_table

    rows = read_reports(reports)
    for path in (out, confusion):
        if path is not None:
            check_out_folder(path.parent)
    if confusion is not None and len(rows) != 1:
        raise InputError(f"--confusion: expected one evaluation, got {len(rows)}; give one report, of one variant")
    if confusion is not None and confusion.suffix.lower() != ".png":
        raise InputError(f"--confusion: expected a name ending in .png, got {confusion}")
    text = TABLE_FORMATS[table_format](class_table(rows) if per_class else summary_table(rows))
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        if not is_quiet():
            click.echo(f"wrote {out}")
    if confusion is not None:
        from cliper.evaluation.confusion_image import draw_confusion
        from cliper.formats import write_overlay

        row = rows[0]
        title = f"{row.name}: rows are ground truth, columns predictions; percent of each row"
        write_overlay(confusion, draw_confusion(row.metrics["matrix"], row.labels, title))
        if not is_quiet():
            click.echo(f"wrote {confusion}", err=out is None)
    return 0
