"""Completion, asked for as a shell does: by the environment variable ``_CLIPER_COMPLETE``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from cliper.checkpoints import entries
from cliper.cli.main import cli
from cliper.datasets import benchmark_names
from cliper.formats import format_names
from cliper.refiners import refiner_names
from cliper.settings import presets


def completed(*words: str) -> set[str]:
    """What is offered for the last word."""
    shell = ShellComplete(cli, {}, "cliper", "_CLIPER_COMPLETE")
    return {item.value for item in shell.get_completions(list(words[:-1]), words[-1]) if item.type == "plain"}


def test_models_refiners_presets_and_formats_are_completed() -> None:
    assert completed("segment", "-m", "") == {entry.alias for entry in entries("clip")}
    assert completed("batch", "--refiner", "") == set(refiner_names())
    assert completed("serve", "-s", "vit-b-16/voc21") == {
        name for name in presets() if name.startswith("vit-b-16/voc21")
    }
    assert completed("batch", "-f", "") == set(format_names())
    assert completed("segment", "-f", "over") == {"overlay", "overlay-jpg", "overlay-webp"}
    assert completed("evaluate", "") == {*presets(), *benchmark_names()}
    assert completed("models", "fetch", "") == {entry.alias for entry in entries()}
    assert completed("data", "verify", "ROOT", "voc") == {"voc20", "voc21"}
    assert completed("segment", "-m", "vit-b") == {"ViT-B/16"}


def test_commands_and_options_are_completed() -> None:
    assert completed("seg") == {"segment"}
    assert "--sensitivity" in completed("segment", "--sens")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"_CLIPER_COMPLETE": "bash_complete", "COMP_WORDS": "cliper segment -m ViT-B", "COMP_CWORD": "3"},
            "plain,ViT-B/16",
        ),
        (
            {"_CLIPER_COMPLETE": "zsh_complete", "COMP_WORDS": "cliper segment -m ViT-B", "COMP_CWORD": "3"},
            "plain\nViT-B/16",
        ),
        (
            {"_CLIPER_COMPLETE": "fish_complete", "COMP_WORDS": "cliper segment -m", "COMP_CWORD": "ViT-B"},
            "plain,ViT-B/16",
        ),
    ],
    ids=["bash", "zsh", "fish"],
)
def test_program_answers_each_shell(variables: dict[str, str], expected: str) -> None:
    call = [
        sys.executable,
        "-c",
        "import sys; from cliper.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)",
    ]
    done = subprocess.run(call, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert expected in done.stdout, done
    assert done.stdout.splitlines()[-1] == "False"  # torch takes seconds to import


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_model(tmp_path: Path) -> None:
    program = tmp_path / "cliper"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cliper "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_CLIPER_COMPLETE=bash_source cliper)"\n'
        "COMP_WORDS=(cliper segment -m ViT-B); COMP_CWORD=3\n"
        "compopt() { :; }\n"  # bash refuses it outside of a completion
        '_cliper_completion cliper; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "ViT-B/16", done


def test_every_value_of_a_closed_list_is_completed() -> None:
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice):
                flag = [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
                assert completed(name, *flag, "") == set(parameter.type.choices)
