"""The files about the project itself: dependencies, workflows, contributing guide, size."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: items for name, items in PROJECT["optional-dependencies"].items() if name not in ("test", "docs", "dev")
}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
CI: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
NOT_WITH_OLDEST = ("s3fs",)  # it needs a newer fsspec
MAX_TRACKED_BYTES = 62 * 2**20


def pins(name: str) -> dict[str, str]:
    """Package -> version of a constraints file."""
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    """What a user may install, without the package's own extras."""
    texts = [*PROJECT["dependencies"], *(text for items in EXTRAS.values() for text in items)]
    return [item for item in map(Requirement, texts) if item.name != "cliper"]


def lower_bound(item: Requirement) -> str:
    (bound,) = (one.version for one in item.specifier if one.operator == ">=")
    return str(bound)


def test_lower_bounds_are_the_versions_that_test_oldest_installs() -> None:
    oldest = pins("constraints-oldest.txt")
    needed = {canonicalize_name(item.name): item for item in requirements() if item.name not in NOT_WITH_OLDEST}
    assert set(oldest) == set(needed)
    for name, item in needed.items():
        assert re.fullmatch(re.escape(lower_bound(item)) + r"(\.0)*", oldest[name]), f"{item}: pinned {oldest[name]}"


def test_pinned_versions_are_allowed() -> None:
    pinned = pins("constraints.txt")
    for item in requirements():
        assert item.specifier.contains(pinned[canonicalize_name(item.name)]), str(item)


def test_version_is_defined_once() -> None:
    import cliper

    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", cliper.__version__)


def test_workflows_and_guide_call_targets_of_the_makefile() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    called = set(re.findall(r"run: make ([a-z-]+)", "".join(texts)))
    named = set(re.findall(r"`(?:PYTHON=\S+ )?make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert {"test", "wheel"} <= called
    assert called | named <= TARGETS


def test_workflow_runs_every_extra_and_the_oldest_python() -> None:
    assert set(CI["jobs"]["extra"]["strategy"]["matrix"]["extra"]) == set(EXTRAS)
    pythons = CI["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["requires-python"]


def paths_of_the_guide() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return sorted(set(re.findall(r"`((?:src|tests|docs|\.github|\.ci)/[\w./-]+)`", text)))


@pytest.mark.parametrize("path", paths_of_the_guide())
def test_path_in_the_contributing_guide_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_tracked_files_are_small() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {name: (ROOT / name).stat().st_size for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < MAX_TRACKED_BYTES, f"largest: {largest}"
