"""Help of commands: options under headings, commands in the order of use, and examples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["CommandGroup", "GroupedCommand", "GroupedOption", "option", "option_group"]

F = TypeVar("F", bound=Callable[..., Any])

_MAX_NAMES_WIDTH = 30  # columns; the help of an option with a longer name starts on the next line

# Placeholder of an option's value -> its type; others are text.
_TYPES = {
    "FILE": click.Path(path_type=Path),
    "FOLDER": click.Path(path_type=Path),
    "INDEX": int,
    "MS": float,
    "N": int,
    "PIXELS": int,
    "SECONDS": float,
    "X": float,
}


class GroupedOption(click.Option):
    """An option with the heading that it is listed under in ``--help``; its default is shown."""

    def __init__(self, *arguments: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*arguments, **{"show_default": True, **attributes})
        self.heading = heading


class _Examples(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the lines of the epilog as examples, without wrapping them."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class GroupedCommand(_Examples):
    """A command whose ``--help`` lists options under headings, and ends with examples (the epilog)."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options under their headings, with one width for all names."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                groups.setdefault(getattr(parameter, "heading", "Options"), []).append(record)
        widths = {
            heading: min(_MAX_NAMES_WIDTH, max(len(names) for names, _ in records))
            for heading, records in groups.items()
        }
        for heading, records in groups.items():
            with formatter.section(heading):
                spacing = 2 + max(widths.values()) - widths[heading]
                formatter.write_dl(records, col_max=_MAX_NAMES_WIDTH, col_spacing=spacing)


class CommandGroup(_Examples, click.Group):
    """A group of commands, listed in the order in which they are added."""

    command_class = GroupedCommand
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(self.commands)


def option(declaration: str, text: str, *names: str, **attributes: Any) -> functools.partial[Callable[[F], F]]:
    """An option for :func:`option_group`.

    Args:
        declaration: as ``--help`` shows it, such as ``"-o, --out FOLDER"``. The placeholder sets the type; without one
            the option is a flag, unless ``type`` is given.
        text: the help text.
        names: the parameter's name, where it is not that of the option.
        attributes: as for :class:`click.Option`.
    """
    *short, last = declaration.split(", ")
    long, _, metavar = last.partition(" ")
    if metavar:
        attributes = {"metavar": metavar, "type": _TYPES.get(metavar, str), **attributes}
    elif "type" not in attributes and "/" not in long:
        attributes["is_flag"] = True
    return functools.partial(click.option, *short, long, *names, cls=GroupedOption, help=text, **attributes)


def option_group(heading: str, *options: functools.partial[Callable[[F], F]]) -> Callable[[F], F]:
    """Add options to a command, under a heading in ``--help``."""

    def decorate(command: F) -> F:
        for add in reversed(options):
            command = add(heading=heading)(command)
        return command

    return decorate
