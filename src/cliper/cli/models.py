"""``cliper models``: list, download and verify checkpoints."""

from __future__ import annotations

import click

from cliper.cli.completion import complete_checkpoints
from cliper.cli.errors import ExitCode, echo_error, is_quiet
from cliper.cli.help import CommandGroup
from cliper.cli.options import message_options
from cliper.cli.tables import print_table
from cliper.errors import CheckpointError

__all__ = ["models"]

_kind_option = click.option(
    "--kind",
    type=click.Choice(["clip", "diffusion", "dino", "vae"]),
    show_default="clip; verify reads it from a folder",
    help="Kind of model, where NAME is not from the list.",
)


@click.group(cls=CommandGroup, epilog="cliper models list\ncliper models fetch ViT-B/16\ncliper models verify ViT-B/16")
def models() -> None:
    """List, download and verify checkpoints."""


@models.command("list", epilog="cliper models list")
def list_models() -> None:
    """List the known checkpoints.

    The last column shows which of them are on this machine. Any other CLIP in transformers format is given by its
    Hugging Face repository or its folder.
    """
    from cliper.checkpoints import entries, resolve

    rows = []
    for entry in entries():
        try:
            location = resolve(entry.alias, entry.kind, download=False).source
        except CheckpointError:
            location = "no"
        source = entry.sources[0].repo if entry.sources else "bundled"
        rows.append((entry.alias, entry.title, source, f"{entry.megabytes} MB", entry.licence, location))
    print_table(("name", "model", "source", "size", "licence", "here"), rows)


@models.command(epilog="cliper models fetch ViT-B/16\ncliper models fetch facebook/dinov2-base --kind dino")
@click.argument("name", shell_complete=complete_checkpoints)
@_kind_option
@message_options
def fetch(name: str, kind: str | None) -> None:
    """Download checkpoint NAME, and print its folder.

    A checkpoint that is on this machine is not downloaded again. NAME is a name from cliper models list or a Hugging
    Face repository.
    """
    from cliper.checkpoints import check_folder, find_entry, resolve

    entry = find_entry(name)
    found = resolve(name, kind or (entry.kind if entry else "clip"))
    check_folder(found.folder, found.kind)
    if not is_quiet():
        click.echo(f"{found.name}: {found.folder}")


@models.command("verify", epilog="cliper models verify mini\ncliper models verify path/to/folder --kind diffusion")
@click.argument("name", shell_complete=complete_checkpoints)
@_kind_option
@message_options
def verify_model(name: str, kind: str | None) -> int:
    """Check every tensor of checkpoint NAME.

    Names, shapes and checksums must be right, and all values finite. NAME is a name from cliper models list, a Hugging
    Face repository or a folder. The exit code is 2 if anything is wrong.
    """
    from cliper.checkpoints import verify_checkpoint

    report = verify_checkpoint(name, kind)
    for problem in report.problems:
        echo_error(f"{report.folder}: {problem}")
    verdict = f"{len(report.problems)} problem(s)" if report.problems else "complete"
    if not is_quiet():
        click.echo(f"{report.name}: {verdict}; {len(report.files)} files, {report.tensors} tensors in {report.folder}")
    return ExitCode.BAD_INPUT if report.problems else ExitCode.DONE
