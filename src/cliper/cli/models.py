"""``cliper models``: which checkpoints there are, fetching them, checking them."""

from __future__ import annotations

import sys

import click

from cliper.errors import CheckpointError

__all__ = ["models"]


@click.group()
def models() -> None:
    """List, fetch and verify checkpoints."""


@models.command("list")
def list_models() -> None:
    """Known checkpoints, and which of them are on this machine.

    Any other CLIP in transformers format is given by its hub name or its folder.
    """
    from rich.console import Console
    from rich.table import Table

    from cliper.checkpoints import entries, resolve

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "what", "from", "size", "licence", "here"):
        table.add_column(heading)
    for entry in entries():
        try:
            here = resolve(entry.alias, entry.kind, download=False).source
        except CheckpointError:
            here = "no"
        repo = entry.sources[0].repo if entry.sources else "bundled"
        table.add_row(entry.alias, entry.title, repo, f"{entry.megabytes} MB", entry.licence, here)
    # A table squeezed into a pipe's 80 columns can neither be read nor searched.
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(table)


@models.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(["clip", "diffusion", "dino"]), default=None, help="Of a hub name.")
def fetch(name: str, kind: str | None) -> None:
    """Download checkpoint NAME (an alias or a hub name) unless it is here, and say where it lies."""
    from cliper.checkpoints import check_folder, find_entry, resolve

    entry = find_entry(name)
    found = resolve(name, kind or (entry.kind if entry else "clip"))
    check_folder(found.folder, found.kind)
    click.echo(f"{found.name}: {found.folder}")


@models.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(["clip", "diffusion", "dino"]), default=None, help="Of a hub name.")
def verify(name: str, kind: str | None) -> int:
    """Check every weight of checkpoint NAME: names, shapes, checksums, no NaN. Exit code 2 if anything is wrong."""
    from cliper.checkpoints import verify as verify_checkpoint

    report = verify_checkpoint(name, kind)
    for problem in report.problems:
        click.echo(f"cliper: error: {report.folder}: {problem}", err=True)
    verdict = "whole" if report.ok else f"{len(report.problems)} problem(s)"
    click.echo(f"{report.name}: {verdict}; {len(report.files)} files, {report.tensors} tensors in {report.folder}")
    return 0 if report.ok else 2
