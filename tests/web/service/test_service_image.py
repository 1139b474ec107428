"""The lines of the Dockerfile, as far as they can be tried without Docker. The image itself is not built here."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from cliper.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows it), lines that are continued put together."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(
        r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    ).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line.strip()]


def the(instruction: str) -> str:
    """What follows the last instruction of that name, which is the one that counts."""
    return [rest for name, rest in instructions() if name == instruction][-1]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[0] == "*"
    sources = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert "src" in sources
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore


def test_all_that_the_build_reads_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert {project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt"} <= copied
    (install,) = (rest for name, rest in instructions() if name == "RUN" and "pip" in rest)
    (extra,) = re.findall(r'"\.\[(\w+)\]"', install)
    assert extra in project["optional-dependencies"]
    assert "--constraint constraints.txt" in install
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def test_python_is_one_that_the_package_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert the("FROM") == "python:3.11-slim"


def test_the_command_is_one_that_there_is() -> None:
    assert json.loads(the("ENTRYPOINT")) == ["cliper"]
    name, *options = json.loads(the("CMD"))
    context = cli.commands[name].make_context(name, list(options))  # parses, and does not run
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", int(the("EXPOSE")))


def test_it_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    assert the("USER") == "cliper"
    assert max(i for i, name in enumerate(names) if name == "RUN") < names.index("USER")
    assert the("STOPSIGNAL") == "SIGTERM"


def test_the_health_check_is_python_that_asks_the_port() -> None:
    check = json.loads(the("HEALTHCHECK").partition(" CMD ")[2] or the("HEALTHCHECK").partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{the('EXPOSE')}/healthz" in check[2]


@pytest.mark.parametrize("line", ["FROM", "COPY", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"])
def test_the_lines_that_matter_are_there(line: str) -> None:
    assert the(line)


def test_a_volume_at_the_cache_is_the_users() -> None:
    """Docker gives a new volume the owner of the folder that it is mounted at; without one it is root's."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    made, used = text.index("install -d -o cliper -g cliper /home/cliper/.cache"), text.index("USER cliper")
    assert made < used
    assert "--volume cliper:/home/cliper/.cache" in (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
