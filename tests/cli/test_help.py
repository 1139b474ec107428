"""``--help`` of every command: headings, defaults, and examples that can be run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from cliper.checkpoints import entries
from cliper.cli.main import cli
from cliper.cli.segment import _FILE_FORMATS
from cliper.formats.registry import format_names
from cliper.refiners.registry import refiner_names


def all_commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(path, command) of every command and group, the root first."""
    yield " ".join(("cliper", *path)), command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from all_commands(child, (*path, name))


COMMANDS = dict(all_commands())
EXAMPLES = [line for command in COMMANDS.values() for line in (command.epilog or "").splitlines()]


def help_of(path: str, width: int = 80) -> str:
    """The help text of a command on a terminal of that width."""
    settings = {**cli.context_settings, "terminal_width": width, "max_content_width": width}
    context = click.Context(COMMANDS[path], info_name=path, **settings)
    return COMMANDS[path].get_help(context)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_80_columns(path: str) -> None:
    # Names of options, and examples, are not wrapped.
    lines = [line for line in help_of(path).splitlines() if not line.lstrip().startswith(("--", "cliper", "curl"))]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_a_help_text(path: str) -> None:
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help[0].isupper() or not parameter.help[0].isalpha(), parameter.help
            assert parameter.help.endswith("."), parameter.help


@pytest.mark.parametrize("path", COMMANDS)
def test_short_help_is_not_cut(path: str) -> None:
    assert "..." not in "".join(re.findall(r"^Commands:\n(.*?)\n\n", help_of(path), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if command.params])
def test_every_command_has_examples(path: str) -> None:
    assert COMMANDS[path].epilog
    assert "\nExamples:\n" in help_of(path)


@pytest.mark.parametrize(
    "path",
    ["cliper segment", "cliper batch", "cliper evaluate", "cliper tune", "cliper serve", "cliper demo"],
)
def test_options_are_listed_under_headings(path: str) -> None:
    headings = re.findall(r"^(\w.*):$", help_of(path), re.MULTILINE)
    assert "Method (default: from --settings)" in headings
    assert "Device" in headings
    ungrouped = help_of(path).partition("\nOptions:\n")[2].partition("\n\n")[0]
    assert ungrouped.split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example.startswith("cliper ")])
def test_examples_are_valid_commands(example: str) -> None:
    command: click.Command = cli
    arguments = shlex.split(example)[1:]
    while isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    command.make_context("example", arguments)  # raises UsageError for unknown options and values


def test_examples_name_classes_of_the_bundled_checkpoint() -> None:
    known = {"dog", "cat", "person", "car", "man", "woman"}  # VOC's classes, and words for person
    named = [names for example in EXAMPLES for names in re.findall(r'-c ("[^"]+"|\w+)', example)]
    assert named
    assert {word for names in named for word in re.findall(r"\w+", names)} <= known


def test_formats_refiners_and_models_are_listed() -> None:
    text = " ".join(help_of("cliper batch", width=500).split())
    for name in format_names():
        assert re.search(rf"[ ,]{name}[,.]", text), name
    for name in (*refiner_names(), *(entry.alias for entry in entries("clip"))):
        assert name in text
    text = " ".join(help_of("cliper segment", width=500).split())
    for name in _FILE_FORMATS:
        assert re.search(rf"[ ,]{name}[,.]", text), name


@pytest.mark.parametrize("path", COMMANDS)
def test_numbers_are_written_as_people_write_them(path: str) -> None:
    assert not re.search(r"\d{4,}\.0\b", help_of(path))
