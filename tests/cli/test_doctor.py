"""``cliper doctor``: what it prints, and that one failed check does not stop the others."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import cliper
from cliper.cli import doctor
from cliper.errors import OutputError


def test_all_checks_pass(command: Any, own_cache: Path) -> None:
    ended = command("doctor")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"cliper {cliper.__version__}, Python 3.")
    here = [extra for extra, module in doctor._EXTRAS.items() if find_spec(module)]
    listed = [line for line in lines if line.startswith("  ")]
    assert len(listed) == len(doctor._PACKAGES) + (1 if len(here) == len(doctor._EXTRAS) else 2)
    assert f"  extras: {', '.join(here)}" in listed
    checks = [line for line in lines if not line.startswith((" ", "cliper"))]
    assert all(line.startswith("ok      ") for line in checks)
    assert len(checks) == len(doctor._CHECKS) == 5
    assert str(own_cache) in ended.out
    assert "found horse in the example photo" in checks[-1]


def test_failed_check_does_not_stop_the_others(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise OutputError("no folder")

    def break_down() -> str:
        raise ModuleNotFoundError("No module named\n'torch'")

    checks = {"one": refuse, "two": break_down, "three": lambda: "fine"}
    monkeypatch.setattr(doctor, "_CHECKS", checks)
    ended = command("doctor")
    assert ended.code == 70
    assert ended.out.splitlines()[-3:] == [
        "failed  one: no folder",
        "failed  two: ModuleNotFoundError: No module named 'torch'",
        "ok      three: fine",
    ]


def test_missing_package_is_named(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor.version

    def without(package: str) -> str:
        if package == "diffusers":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(doctor, "version", without)
    monkeypatch.setattr(doctor, "_CHECKS", {})
    assert "  diffusers is missing: pip install diffusers" in command("doctor").out.splitlines()


@pytest.mark.parametrize("folder", ["/proc/nothing", "a-file"])
def test_unwritable_cache_fails_the_check(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPER_CACHE", folder)
    monkeypatch.setattr(doctor, "_CHECKS", {"cache": doctor._cache})
    ended = command("doctor")
    assert ended.code == 2
    assert f"failed  cache: expected a cache folder that can be written, got {folder}" in ended.out
