"""The rooms of the package: who may import whom, and what is imported when. ``docs/design.md`` says why."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cliper"

# Room -> the rooms it may import, besides itself. A module in the package's own folder is a room.
BASE = {"errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "cache": set(),
    "hf_logging": set(),
    "examples": set(),
    "files": BASE,
    "settings": BASE,
    "kernels": BASE,
    "ops": BASE | {"kernels"},
    "image_limits": BASE,
    "decoding": BASE | {"image_limits"},
    "devices": BASE,
    "images": BASE | {"decoding", "image_limits"},
    "decode_pool": BASE | {"images"},
    "checkpoints": BASE | {"settings"},
    "encoders": BASE | {"devices", "hf_logging", "kernels", "ops", "settings"},
    "prompts": BASE | {"cache", "encoders"},
    "refiners": BASE | {"cache", "checkpoints", "devices", "encoders", "hf_logging", "kernels", "ops", "settings"},
    "formats": BASE | {"decoding", "files", "images"},
    "result": BASE | {"devices", "formats", "ops", "settings"},
    "segmenter": BASE
    | {"cache", "checkpoints", "devices", "encoders", "images", "ops"}
    | {"prompts", "refiners", "result", "settings"},
    "provenance": BASE | {"checkpoints", "refiners"},
    "datasets": BASE | {"decoding", "files", "formats", "images", "prompts"},
    "runner": BASE | {"decode_pool", "devices", "files"},
    "batch": BASE
    | {
        "decode_pool",
        "devices",
        "files",
        "formats",
        "prompts",
        "provenance",
        "result",
        "runner",
        "segmenter",
        "settings",
    },
    "evaluation": BASE
    | {"datasets", "devices", "files", "formats", "ops", "prompts", "provenance", "runner", "segmenter", "settings"},
    "web": BASE
    | {"cache", "checkpoints", "devices", "examples", "files", "formats", "images", "ops", "prompts"}
    | {"refiners", "result", "segmenter", "settings"},
}
EVERYTHING = {"__init__", "__main__", "cli"}  # thin: they parse, call and show

# Library -> the rooms that may import it, wherever in the file.
LIBRARIES: dict[str, set[str]] = {
    "transformers": {"checkpoints", "encoders", "hf_logging", "refiners"},
    "diffusers": {"checkpoints", "kernels", "refiners"},
    "huggingface_hub": {"checkpoints", "cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "scipy": {"datasets", "formats", "ops"},
    "pycocotools": {"datasets"},
    "supervision": {"formats"},
    "av": {"batch", "runner"},
    "ray": {"runner"},
    "fsspec": {"runner"},
    "gradio": {"web"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "pydantic": {"web"},
    "prometheus_client": {"web"},
    "torchvision": set(),
    "timm": set(),
    "open_clip": set(),
}
# Imported inside functions only, so that importing a module is quick. Where torch is at home it is free.
LATE = {
    "transformers",
    "diffusers",
    "huggingface_hub",
    "safetensors",
    "rich",
    "scipy",
    "pycocotools",
    "supervision",
    "av",
    "ray",
    "fsspec",
}
TORCH_AT_HOME = {"devices", "encoders", "kernels", "ops", "refiners", "segmenter"}


class Import(NamedTuple):
    """One imported name: the room and file it is in, what is imported, and whether that happens at once."""

    room: str
    where: str
    module: str
    at_once: bool


def room_of(module: str) -> str:
    """``cliper.ops.fusion`` -> ``ops``; ``cliper`` itself -> ``__init__``."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "__init__"


def imports_of(path: Path) -> Iterator[Import]:
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")

    def visit(node: ast.AST, at_once: bool) -> Iterator[Import]:
        where = f"{relative}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(room, where, item.name, at_once) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: imports are absolute here"
            module = node.module or ""
            for item in node.names:
                full = f"{module}.{item.name}"
                # "from cliper import ops" names a room, "from cliper import __version__" does not.
                is_room = module == "cliper" and item.name in ROOMS
                yield Import(room, where, full if is_room else module, at_once)
        for child in ast.iter_child_nodes(node):
            late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            late = late or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
            yield from visit(child, at_once and not late)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
IMPORTS = [item for path in FILES for item in dict.fromkeys(imports_of(path))]


def test_every_room_has_a_rule() -> None:
    unruled = ROOMS - set(MAY_IMPORT) - EVERYTHING
    assert not unruled, f"say in this test and in docs/design.md what {sorted(unruled)} may import"


@pytest.mark.parametrize("room", sorted(ROOMS - EVERYTHING))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT.get(room, set()) | {room}
    wrong = [
        f"{item.where} imports {item.module}"
        for item in IMPORTS
        if item.room == room and item.module.partition(".")[0] == "cliper" and room_of(item.module) not in allowed
    ]
    assert not wrong, f"{room} may import {sorted(allowed)}: " + "; ".join(wrong)


def test_libraries_stay_in_their_rooms() -> None:
    wrong = [
        f"{item.where} imports {item.module}"
        for item in IMPORTS
        if item.room not in LIBRARIES.get(item.module.partition(".")[0], {item.room})
    ]
    assert not wrong, "; ".join(wrong)


def test_heavy_libraries_are_imported_where_they_are_first_used() -> None:
    wrong = []
    for item in IMPORTS:
        library = item.module.partition(".")[0]
        if item.at_once and (library in LATE or (library == "torch" and item.room not in TORCH_AT_HOME)):
            wrong.append(f"{item.where} imports {item.module}")
    assert not wrong, "; ".join(wrong)


def test_only_kernels_call_private_operators_of_pytorch() -> None:
    private = re.compile(
        r"torch\.ops\.mkldnn|torch\._C\b|\b_C\._nn|_reorder_linear_weight|_linear_pointwise|mkldnn_\w+\("
    )
    files = [path.relative_to(PACKAGE).as_posix() for path in FILES if private.search(path.read_text(encoding="utf-8"))]
    assert files == ["kernels/linear.py"]


def test_kernels_import_only_torch_and_the_standard_library() -> None:
    own = {"cliper", "torch", "diffusers"} | set(sys.stdlib_module_names)
    wrong = [
        f"{item.where} imports {item.module}"
        for item in IMPORTS
        if item.room == "kernels" and item.module.partition(".")[0] not in own
    ]
    assert not wrong, "; ".join(wrong)


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for typing count, too; the rooms that may import everything do not."""
    rooms = ROOMS - EVERYTHING
    needed = {room: {room_of(i.module) for i in IMPORTS if i.room == room and is_ours(i)} - {room} for room in rooms}
    while needed:
        free = {room for room, needs in needed.items() if not needs & set(needed)}
        assert free, f"a circle of imports among {sorted(needed)}"
        needed = {room: needs for room, needs in needed.items() if room not in free}


def is_ours(item: Import) -> bool:
    return item.module.partition(".")[0] == "cliper"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, cliper; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "cliper" in loaded
    assert not {"PIL", "diffusers", "huggingface_hub", "numpy", "torch", "transformers", "yaml"} & set(loaded)


def test_files_are_short() -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "tests", "benchmarks", "docs")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    long = {name: count for name, count in lines.items() if count > 300}
    assert not [name for name, count in long.items() if count > 500], f"over 500 lines: {long}"
    assert len(long) <= len(lines) // 10, f"most files stay under 300 lines: {long}"
