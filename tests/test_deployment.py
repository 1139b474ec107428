"""The Dockerfile and the example for nginx, as far as they can be tested without these programs."""

from __future__ import annotations

import json
import re
import signal
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from uvicorn.server import HANDLED_SIGNALS

from cliper.cli.main import cli
from cliper.server.models import Limits

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", lines).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined if line.strip()]


def the(instruction: str) -> str:
    """Arguments of the last instruction of that name, which is the effective one."""
    return [rest for name, rest in instructions() if name == instruction][-1]


def test_everything_that_the_build_needs_is_copied() -> None:
    copied = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "constraints.txt", "src"} <= set(copied)
    assert all((ROOT / source).exists() for source in copied)
    (install,) = (rest for name, rest in instructions() if name == "RUN" and "pip" in rest)
    assert "--constraint constraints.txt" in install
    assert '".[server]"' in install


def test_pins_are_in_the_range_of_the_requirements() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if re.match(r"[\w.-]+==", line))
    for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]):
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")]), text
    (python,) = re.findall(r"^python:(\d+\.\d+)", the("FROM"))
    assert python in SpecifierSet(PROJECT["requires-python"])


def test_command_listens_without_root_on_the_exposed_port() -> None:
    names = [name for name, _ in instructions()]
    assert int(re.findall(r"--uid (\d+)", TEXT)[0]) != 0
    assert max(i for i, name in enumerate(names) if name in {"RUN", "COPY"}) < names.index("USER")
    # Docker gives a new volume the owner of the folder that it is mounted at.
    assert f"install -d -o {the('USER')} -g {the('USER')} /home/{the('USER')}/.cache" in TEXT
    assert json.loads(the("ENTRYPOINT")) == list(PROJECT["scripts"])
    name, *options = json.loads(the("CMD"))
    given = cli.commands[name].make_context(name, options, **cli.context_settings).params
    assert (given["host"], given["port"]) == ("0.0.0.0", int(the("EXPOSE")))
    assert f"http://127.0.0.1:{the('EXPOSE')}/healthz" in json.loads(the("HEALTHCHECK").partition("CMD ")[2])[2]
    assert getattr(signal, the("STOPSIGNAL")) in HANDLED_SIGNALS


def test_nginx_example_fits_the_limits_and_the_host_check() -> None:
    text = (ROOT / "docs" / "nginx.conf").read_text(encoding="utf-8")
    set_by = dict(re.findall(r"^\s*([a-z_]+) (.*?);", text, re.MULTILINE))
    assert set_by["client_max_body_size"] == f"{Limits().megabytes:.0f}m"
    assert int(set_by["proxy_read_timeout"].rstrip("s")) > Limits().seconds
    assert set_by["proxy_pass"] == "http://127.0.0.1:8000"
    # The server answers to a Host of its own machine only, which is what nginx sends unless told otherwise.
    assert re.findall(r"proxy_set_header (\S+) (\S+);", text) == [
        ("Connection", '""'),
        ("X-Forwarded-Host", "$http_host"),
    ]
