"""``--quiet`` and ``--verbose`` of every command."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cliper.cli.main import cli

LISTS = {"models list", "data list", "benchmarks"}  # they only print what is asked for


def commands(group: click.Group = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_but_lists_can_be_quiet_or_verbose(path: str, command: click.Command) -> None:
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert (path in LISTS) != ({"-q", "--quiet", "-v", "--verbose"} <= flags)


@pytest.fixture
def arguments(clip_folder: Path, photo: Path, tmp_path: Path) -> dict[str, list[object]]:
    return {
        "segment": ["segment", photo, "-c", "dog, grass", "-m", clip_folder, "-o", tmp_path / "out"],
        "batch": ["batch", photo.parent, "-c", "dog, grass", "-m", clip_folder, "-o", tmp_path / "out"],
        "verify": ["models", "verify", "mini"],
        "fetch": ["models", "fetch", "mini"],
    }


@pytest.mark.parametrize("name", ["segment", "batch", "verify", "fetch"])
def test_quiet_command_prints_nothing(command: Any, arguments: dict[str, list[object]], name: str) -> None:
    ended = command(*arguments[name], "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_quiet_command_prints_errors(command: Any, clip_folder: Path, photo: Path, tmp_path: Path) -> None:
    (photo.parent / "bad.png").write_text("no image")
    ended = command("batch", photo.parent, "-c", "dog", "-m", clip_folder, "-o", tmp_path / "out", "--quiet")
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("cliper: error: bad.png: expected an image")


def test_verbose_segment_names_the_model_and_the_seconds_of_each_step(
    command: Any, arguments: dict[str, list[object]], clip_folder: Path, photo: Path
) -> None:
    lines = command(*arguments["segment"], "-v", "-r", "self").err.splitlines()
    assert all(line.startswith("cliper: ") for line in lines)
    text = "\n".join(lines)
    assert re.search(rf"model {clip_folder} \(local, \d+ MB in {clip_folder}\) on cpu; ready in \d+\.\d\d s", text)
    assert "settings: recipe " in text
    assert re.search(r"\d+ texts encoded in \d+\.\d\d s", text)
    assert re.search(rf"{photo}: read in \d+\.\d\d s, networks \d+\.\d\d s, class maps and labels \d+\.\d\d s", text)


def test_verbose_batch_names_every_image_and_the_time_of_the_model(
    command: Any, arguments: dict[str, list[object]]
) -> None:
    text = command(*arguments["batch"], "--verbose").err
    assert re.search(r"^cliper: photo\.png: \d+\.\d\d s$", text, re.MULTILINE)
    assert re.search(r"models \d+\.\d s, waiting for images \d+\.\d s; memory at most: \d+\.\d\d GiB resident", text)


def test_quiet_and_verbose_together_are_refused(command: Any, arguments: dict[str, list[object]]) -> None:
    ended = command(*arguments["segment"], "-q", "-v")
    assert ended.code == 2
    assert "expected --quiet or --verbose, got both" in ended.err


def test_each_command_begins_with_the_usual_level(command: Any, arguments: dict[str, list[object]]) -> None:
    command(*arguments["fetch"], "-q")
    assert command(*arguments["fetch"]).out
    assert logging.getLogger("cliper").level == logging.WARNING
