"""Imports between the packages of ``cliper``, and of other libraries; ``docs/design.md`` lists the packages."""

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
SOURCE = ROOT / "src" / "cliper"

# Package -> the packages it may import, besides itself. A module in the top folder counts as a package.
BASE = {"errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "cache": set(),
    "hf_logging": set(),
    "examples": set(),
    "files": BASE,
    "settings_file": BASE,
    "setting_checks": BASE,
    "settings": BASE | {"setting_checks", "settings_file"},
    "kernels": BASE,
    "ops": BASE | {"kernels"},
    "devices": BASE,
    "images": BASE,
    "decode_pool": BASE | {"images"},
    "pretrained": BASE | {"devices", "hf_logging"},
    "checkpoints": BASE | {"pretrained", "settings"},
    "encoders": BASE | {"checkpoints", "devices", "kernels", "ops", "pretrained", "settings"},
    "prompts": BASE | {"cache", "encoders", "ops", "settings"},
    "text_classifier": BASE | {"cache", "encoders", "ops", "prompts", "settings"},
    "refiners": BASE
    | {
        "cache",
        "checkpoints",
        "devices",
        "encoders",
        "files",
        "hf_logging",
        "kernels",
        "ops",
        "pretrained",
        "setting_checks",
        "settings",
    },
    "formats": BASE | {"files", "images"},
    "result": BASE | {"devices", "formats", "ops", "settings"},
    "encoded_image": BASE | {"encoders", "images", "refiners", "settings"},
    "segmenter": BASE
    | {"cache", "checkpoints", "devices", "encoded_image", "encoders", "images", "ops"}
    | {"prompts", "refiners", "result", "setting_checks", "settings", "text_classifier"},
    "template_selection": BASE | {"encoders", "ops", "prompts", "segmenter"},
    "vocabulary": BASE | {"checkpoints", "encoders", "prompts"},
    "provenance": BASE | {"checkpoints", "refiners"},
    "model_config": BASE | {"devices", "provenance", "refiners", "segmenter", "settings"},
    "datasets": BASE | {"files", "formats", "images", "prompts"},
    "runner": BASE | {"decode_pool", "devices", "files"},
    "raster": BASE | {"files", "formats", "images", "ops", "prompts", "result", "segmenter", "settings"},
    "batch": BASE
    | {
        "decode_pool",
        "encoders",
        "files",
        "formats",
        "images",
        "model_config",
        "ops",
        "prompts",
        "result",
        "runner",
        "segmenter",
        "template_selection",
    },
    "evaluation": BASE
    | {"datasets", "decode_pool", "devices", "encoded_image", "files", "formats", "model_config", "ops"}
    | {"prompts", "provenance", "runner", "segmenter", "settings"},
    "export": BASE
    | {"checkpoints", "encoders", "files", "images", "kernels", "ops", "prompts", "provenance", "refiners", "settings"},
    "server": BASE
    | {"cache", "decode_pool", "devices", "encoded_image", "examples", "files", "formats", "images", "ops"}
    | {"prompts", "result", "segmenter", "settings", "vocabulary"},
}
EVERYTHING = {"__init__", "__main__", "cli"}  # thin: they parse, call and show

# Library -> the packages that may import it, inside functions too.
LIBRARIES: dict[str, set[str]] = {
    "transformers": {"checkpoints", "hf_logging", "pretrained", "refiners"},
    "diffusers": {"checkpoints", "kernels", "refiners"},
    "huggingface_hub": {"checkpoints", "cli"},
    "tokenizers": {"encoders"},
    "click": {"cli"},
    "rich": {"cli"},
    "scipy": {"datasets", "formats", "ops"},
    "pycocotools": {"datasets"},
    "supervision": {"formats"},
    "av": {"batch", "runner"},
    "pillow_heif": {"images"},
    "rasterio": {"raster"},
    "pyogrio": {"raster"},
    "ray": {"runner"},
    "fsspec": {"runner"},
    "onnx": {"export"},
    "onnxscript": {"export"},
    "openvino": {"export"},
    "onnxruntime": set(),
    "gradio": set(),
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "pydantic": {"server"},
    "prometheus_client": {"server"},
    "torchvision": set(),
    "timm": set(),
    "open_clip": set(),
}
# Imported inside functions only, so that importing a module is fast.
LATE = {
    "transformers",
    "diffusers",
    "huggingface_hub",
    "safetensors",
    "tokenizers",
    "rich",
    "scipy",
    "pycocotools",
    "supervision",
    "av",
    "pillow_heif",
    "rasterio",
    "pyogrio",
    "ray",
    "fsspec",
    "onnx",
    "onnxscript",
    "openvino",
}
IMPORTS_TORCH = {"devices", "encoders", "export", "kernels", "ops", "pretrained", "refiners", "segmenter"}


class Import(NamedTuple):
    """One import: its package and line, the imported module, and whether it runs when the file is imported."""

    package: str
    where: str
    module: str
    at_import: bool


def package_of(module: str) -> str:
    """``cliper.ops.fusion`` -> ``ops``; ``cliper`` itself -> ``__init__``."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "__init__"


def imports_of(path: Path) -> Iterator[Import]:
    relative = path.relative_to(SOURCE)
    package = relative.parts[0].removesuffix(".py")

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        where = f"{relative}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(package, where, item.name, at_import) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: imports are absolute here"
            module = node.module or ""
            for item in node.names:
                full = f"{module}.{item.name}"
                # "from cliper import ops" names a package, "from cliper import __version__" does not.
                is_package = module == "cliper" and item.name in PACKAGES
                yield Import(package, where, full if is_package else module, at_import)
        for child in ast.iter_child_nodes(node):
            late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            late = late or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
            yield from visit(child, at_import and not late)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


FILES = sorted(SOURCE.rglob("*.py"))
PACKAGES = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
IMPORTS = [item for path in FILES for item in dict.fromkeys(imports_of(path))]


def test_every_package_has_a_rule() -> None:
    missing = PACKAGES - set(MAY_IMPORT) - EVERYTHING
    assert not missing, f"add {sorted(missing)} to this test and to docs/design.md"


def test_table_of_design_page_has_the_same_rules() -> None:
    table: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "design.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            names, _, imports = (cell.strip() for cell in line.strip("|").split("|"))
            allowed = set() if imports == "nothing" else set(imports.split(", "))
            table |= {name.rstrip("/"): allowed for name in re.findall(r"`([^`*]+)`", names)}
    assert {name: allowed for name, allowed in table.items() if name not in EVERYTHING | {"assets"}} == MAY_IMPORT


@pytest.mark.parametrize("package", sorted(PACKAGES - EVERYTHING))
def test_package_imports_only_allowed_packages(package: str) -> None:
    allowed = MAY_IMPORT.get(package, set()) | {package}
    wrong = [
        f"{item.where} imports {item.module}"
        for item in IMPORTS
        if item.package == package
        and item.module.partition(".")[0] == "cliper"
        and package_of(item.module) not in allowed
    ]
    assert not wrong, f"{package} may import {sorted(allowed)}: " + "; ".join(wrong)


def test_libraries_are_imported_only_by_allowed_packages() -> None:
    wrong = [
        f"{item.where} imports {item.module}"
        for item in IMPORTS
        if item.package not in LIBRARIES.get(item.module.partition(".")[0], {item.package})
    ]
    assert not wrong, "; ".join(wrong)


def test_heavy_libraries_are_imported_where_they_are_first_used() -> None:
    wrong = []
    for item in IMPORTS:
        library = item.module.partition(".")[0]
        if item.at_import and (library in LATE or (library == "torch" and item.package not in IMPORTS_TORCH)):
            wrong.append(f"{item.where} imports {item.module}")
    assert not wrong, "; ".join(wrong)


def test_only_kernels_call_private_operators_of_pytorch() -> None:
    private = re.compile(
        r"torch\.ops\.mkldnn|torch\._C\b|\b_C\._nn|_reorder_linear_weight|_linear_pointwise|mkldnn_\w+\("
    )
    files = [path.relative_to(SOURCE).as_posix() for path in FILES if private.search(path.read_text(encoding="utf-8"))]
    assert files == ["kernels/linear.py"]


def test_kernels_import_only_torch_and_the_standard_library() -> None:
    own = {"cliper", "torch", "diffusers"} | set(sys.stdlib_module_names)
    wrong = [
        f"{item.where} imports {item.module}"
        for item in IMPORTS
        if item.package == "kernels" and item.module.partition(".")[0] not in own
    ]
    assert not wrong, "; ".join(wrong)


def test_packages_have_no_circular_imports() -> None:
    """Includes imports inside functions and for typing, but not the packages that may import everything."""
    packages = PACKAGES - EVERYTHING
    needed = {
        package: {package_of(i.module) for i in IMPORTS if i.package == package and is_ours(i)} - {package}
        for package in packages
    }
    while needed:
        free = {package for package, needs in needed.items() if not needs & set(needed)}
        assert free, f"circular imports among {sorted(needed)}"
        needed = {package: needs for package, needs in needed.items() if package not in free}


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
