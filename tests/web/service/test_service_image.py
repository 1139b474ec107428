"""The lines of the Dockerfile, as far as they can be tried without Docker. The image itself is not built here."""

from __future__ import annotations

import json
import re
import shlex
import signal
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from uvicorn.server import HANDLED_SIGNALS

from cliper.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows it), lines that are continued put together."""
    lines = re.sub(
        r"\\\n\s*", "", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))
    ).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line.strip()]


def the(instruction: str) -> str:
    """What follows the last instruction of that name, which is the one that counts."""
    return [rest for name, rest in instructions() if name == instruction][-1]


def copied() -> list[str]:
    """What the build takes from the repository."""
    return [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def default_of(option: str) -> object:
    """What an option of ``cliper serve`` is if it is not given."""
    (found,) = (one for one in cli.commands["serve"].params if one.name == option)
    return found.default


# --- what the build is given ---------------------------------------------------------------------------------


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file from the build: the last line that is about it, or a folder of it, decides."""
    parents = [path, *map(str, Path(path).parents)][:-1]
    found = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, parent) for parent in parents):
            found = not line.startswith("!")
    return found


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    assert "src" in copied()
    for source in copied():
        assert (ROOT / source).exists()
        assert not ignored(source)


def test_every_file_of_the_package_gets_to_the_build() -> None:
    package = ROOT / "src" / "cliper"
    patterns = ["**/*.py", *project()["tool"]["setuptools"]["package-data"]["cliper"]]
    for pattern in patterns:
        files = [path for path in package.glob(pattern) if "__pycache__" not in path.parts]
        assert files, pattern
        assert [path for path in files if ignored(str(path.relative_to(ROOT)))] == []


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "tests/conftest.py", "demo/a.png", "src/cliper/__pycache__/a.pyc"]
)
def test_nothing_else_gets_to_the_build(path: str) -> None:
    assert ignored(path)


def test_all_that_the_build_reads_is_copied() -> None:
    described = project()["project"]
    assert {described["readme"], *described["license-files"], "pyproject.toml", "constraints.txt"} <= set(copied())
    (install,) = (rest for name, rest in instructions() if name == "RUN" and "pip" in rest)
    (extra,) = re.findall(r'"\.\[(\w+)\]"', install)
    assert extra in described["optional-dependencies"]
    assert "--constraint constraints.txt" in install


# --- what is in it -------------------------------------------------------------------------------------------


def pinned() -> dict[str, str]:
    """Name -> version of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def python() -> str:
    """The version of Python that the image has."""
    (found,) = re.findall(r"^python:(\d+\.\d+)(?:-\w+)*$", the("FROM"))
    return str(found)


def test_python_is_one_that_the_package_and_all_that_is_pinned_take() -> None:
    assert python() in SpecifierSet(project()["project"]["requires-python"])
    looked_at = []
    for name in pinned():
        try:
            wanted = metadata(name).get("Requires-Python")
        except PackageNotFoundError:  # of another system than this
            continue
        looked_at.append(name)
        assert SpecifierSet(wanted or "").contains(python()), f"{name} wants Python {wanted}"
    assert {"torch", "fastapi"} <= set(looked_at)


def test_all_that_is_installed_is_pinned_to_what_the_package_takes() -> None:
    described, pins = project()["project"], {name.lower().replace("_", "-"): pin for name, pin in pinned().items()}
    for text in (*described["dependencies"], *described["optional-dependencies"]["server"]):
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")]), text


def test_who_runs_it_is_made_in_it_and_is_not_root() -> None:
    """And what needs root comes before."""
    names = [name for name, _ in instructions()]
    (made,) = re.findall(r"useradd ([^&]*)", TEXT)
    assert shlex.split(made)[-1] == the("USER")
    (number,) = re.findall(r"--uid (\d+)", made)
    assert int(number) != 0
    assert max(i for i, name in enumerate(names) if name in {"RUN", "COPY"}) < names.index("USER")
    assert the("WORKDIR") == f"/home/{the('USER')}"


def test_a_volume_at_the_cache_is_the_users() -> None:
    """Docker gives a new volume the owner of the folder that it is mounted at; without one it is root's."""
    (made,) = re.findall(r"install -d (.*)", TEXT)
    *owner, folder = shlex.split(made)
    assert owner == ["-o", the("USER"), "-g", the("USER")]
    for page in (TEXT, (ROOT / "docs" / "service.md").read_text(encoding="utf-8")):
        assert re.findall(r"--volume [\w-]+:(\S+)", page) == [folder]


# --- what it does --------------------------------------------------------------------------------------------


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of arguments; nothing is run."""
    name, *options = arguments
    return cli.commands[name].make_context(name, options).params


def test_the_command_is_one_that_there_is() -> None:
    assert json.loads(the("ENTRYPOINT")) == list(project()["project"]["scripts"])
    given = parsed(json.loads(the("CMD")))
    assert given["host"] == "0.0.0.0"  # else nobody outside of the container reaches it
    assert given["port"] == int(the("EXPOSE")) == default_of("port")


def test_the_commands_that_are_shown_are_ones_that_there_are() -> None:
    comment = "\n".join(line.removeprefix("#") for line in TEXT.splitlines() if line.startswith("#"))
    runs = [shlex.split(line) for line in comment.replace("\\\n", " ").splitlines() if "docker run" in line]
    assert len(runs) == 2
    for run in runs:
        image = run.index("cliper")
        assert run[run.index("--publish") + 1].rpartition(":")[2] == the("EXPOSE")
        given = parsed(run[image + 1 :] or json.loads(the("CMD")))
        assert (given["host"], given["port"]) == ("0.0.0.0", int(the("EXPOSE")))


def test_the_signal_of_a_stop_is_one_that_is_handled() -> None:
    assert getattr(signal, the("STOPSIGNAL")) in HANDLED_SIGNALS


def test_the_health_check_is_python_that_asks_the_port() -> None:
    check = json.loads(the("HEALTHCHECK").partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{the('EXPOSE')}/healthz" in check[2]
